"""Parts of a graph that are computed once, and fed to whatever is computed after them."""
from utils.tf1 import tf


def once_for(session, fetch, source, others):
    """Makes a function of a value of `source`, which returns one of values of `others`, which returns that of `fetch`.

    What depends on none of `others`, but on `source` or variables alone, is computed by the first call alone. The functions
    may be called by several threads, and compute in the thread that calls.

    Args:
      session: a session.Session.
      fetch: a tensor that depends on `source`, `others`, variables and nothing else.
      source: a tensor.
      others: a list of tensors.
    """
    kept = _of_none(fetch, source, others)
    first = session.make_callable(kept, [source], in_caller=True)
    rest = session.make_callable(fetch, others + kept, in_caller=True)

    def start(value):
        values = first(value)
        return lambda *other_values: rest(*(other_values + tuple(values)))
    return start


def _of_none(fetch, source, others):
    """The tensors nearest to `fetch` that don't depend on `others`, but for constants and variables as they are."""
    ends = {tensor.name for tensor in others}
    depends, found, seen, waiting = {source.name: False}, [], set(), [fetch]

    def needs_others(tensor):
        if tensor.name not in depends:
            depends[tensor.name] = tensor.name in ends or any(needs_others(input_) for input_ in tensor.op.inputs)
        return depends[tensor.name]

    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if not needs_others(tensor):
            if tensor is source or not _is_given(tensor):
                found.append(tensor)
        elif tensor.name not in ends:
            waiting += tensor.op.inputs
    return found


def _is_given(tensor):
    """Whether it is a constant, a variable or a variable's value: there is nothing to compute."""
    return not tensor.op.inputs or all(input_.dtype == tf.resource for input_ in tensor.op.inputs)
