"""Parts of a graph that are computed once, and fed to whatever is computed after them."""


def once_for(session, fetch, source, others):
    """Makes a function of a value of `source`, which returns one of values of `others`, which returns that of `fetch`.

    What depends on `source` and on none of `others` is computed by the first call alone. The functions may be called by
    several threads.

    Args:
      session: a tf.Session.
      fetch: a tensor that depends on `source`, `others`, variables and nothing else.
      source: a tensor.
      others: a list of tensors.
    """
    kept = _of_source_alone(fetch, source, others)
    first = session.make_callable(kept, [source])
    rest = session.make_callable(fetch, others + kept)

    def start(value):
        values = first(value)
        return lambda *other_values: rest(*(other_values + tuple(values)))
    return start


def _of_source_alone(fetch, source, others):
    """The tensors nearest to `fetch` that depend on `source`, but not on `others`."""
    ends = {tensor.name for tensor in [source] + others}
    depends_on, found, seen, waiting = {}, [], set(), [fetch]

    def needed(tensor):
        """Which of `ends` the tensor depends on."""
        if tensor.name not in depends_on:
            depends_on[tensor.name] = {tensor.name} if tensor.name in ends else set().union(
                *[needed(input_) for input_ in tensor.op.inputs])
        return depends_on[tensor.name]

    while waiting:
        tensor = waiting.pop()
        if tensor.name in seen:
            continue
        seen.add(tensor.name)
        if needed(tensor) == {source.name}:
            found.append(tensor)
        elif needed(tensor) and tensor.name not in ends:
            waiting += tensor.op.inputs
    return found
