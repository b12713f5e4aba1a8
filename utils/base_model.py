"""What every model is: a class with one method, `logit(history, candidate)`.

The graphs around it, which train and score, are utils/engine/training_graph.py and scoring_graph.py.
"""


class BaseModel:
    """A model of B users with C candidates each; see the folders beside utils.

    The contract of `logit`: a history and its candidates know their item ids (`.ids`), in graphs that train and graphs
    that score alike. Either, or a part of either such as `candidate[:, :1]`, may be embedded as often as one likes;
    what is not asked for is neither looked up nor made. Every variable of tf.get_variable is given its whole gradient.
    Users and candidates may be scored in several calls: let a logit depend on its user and candidate alone. A tower may
    have no users, B = 0, when the last batch is small.

    Attributes:
      attention: [N, C] how much each history item matters to each candidate, before the softmax over a history. A model
        with attention sets it in `logit`, to be shown; it changes nothing.
    """

    attention = None

    def logit(self, history, candidate):
        """The score of each candidate, before the sigmoid: the model itself.

        Args:
          history: `History` of B users: its `segments` [N] and `lengths` [B] say whose each of its N items is.
          candidate: `Items` [B, C].

        Returns:
          [B, C] logits.
        """
        raise NotImplementedError

    def embed(self, items):
        """[item embedding, category embedding] of each of `items` [...] -> [..., H]."""
        return items.look_up("embedding")

    def embed_item(self, items):
        """The item embedding alone: `items` [...] -> [..., H / 2]."""
        return items.look_up("item")

    def embed_category(self, items):
        """The embedding of each item's category alone: `items` [...] -> [..., H / 2]."""
        return items.look_up("category")

    def item_bias(self, candidate):
        """The learned bias of each candidate: `Items` [B, C], or a part of these, -> [B, C]."""
        return candidate.look_up("bias")
