"""Checkpoints that are whole or not there.

    save_path/ckpt.*      the variables with the best GAUC so far
    save_path/latest.*    the variables at the latest evaluation, to resume from
    save_path/state.json  the run that they belong to, and its state

They are written into a folder beside, which becomes `.ready` by one rename, once they are on the disk; its files are
then moved into save_path. A run that is killed on the way, or a power cut, leaves either the old files, or a `.ready`
folder, whose files the next reader moves. A lock keeps readers from seeing files of two checkpoints.
"""
import json
import os
import shutil

from utils.files import UserError, plain_path, replacing, set_aside, sync, sync_all, unwritable
from utils.runs.locks import waited_for
from utils.tf1 import tf, tf_reason

BEST, LATEST = "ckpt", "latest"
STATE = "state.json"


def _check_shapes(graph, shapes):
    """Raises ValueError unless the variables of `graph` have the `shapes` that a checkpoint has for them, by name.

    TensorFlow's own restoring gives a variable whatever shape the checkpoint has.
    """
    for variable in graph.get_collection(tf.GraphKeys.GLOBAL_VARIABLES):
        shape = variable.shape.as_list()
        if shapes.get(variable.op.name, shape) != shape:
            raise ValueError("%s has the shape %s there, %s in the model"
                             % (variable.op.name, shapes[variable.op.name], shape))


class Checkpoints:
    """The checkpoints in the folder `save_path`, written and restored by `saver`."""

    def __init__(self, save_path, saver):
        self.save_path, self._saver = save_path, saver
        with self.held():
            self._finish_move()

    def _path(self, name):
        return os.path.join(self.save_path, name)

    def held(self):
        """A context in which no other process changes the checkpoints; not to be nested."""
        return waited_for(self._path(".checkpoints.lock"))

    def _finish_move(self):
        ready = self._path(".ready")
        if os.path.isdir(ready):
            for name in sorted(os.listdir(ready)):
                os.replace(os.path.join(ready, name), self._path(name))
            sync(self.save_path)
            os.rmdir(ready)

    def save(self, session, state, best):
        """Writes the latest variables and `state`, a JSON object; `best` says that they are the best so far too.

        Raises UserError where they can't be written; the earlier checkpoints stay.
        """
        beside = self._path(".writing")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            os.makedirs(beside)
            with plain_path(beside) as folder:
                self._saver.save(session, os.path.join(folder, LATEST), write_meta_graph=False, write_state=False)
            if best:
                for name in os.listdir(beside):
                    shutil.copyfile(os.path.join(beside, name), os.path.join(beside, name.replace(LATEST, BEST, 1)))
            with open(os.path.join(beside, STATE), "w") as file:
                json.dump(state, file, indent=1)
            for name in os.listdir(beside):
                if os.path.exists(self._path(name)):
                    shutil.copymode(self._path(name), os.path.join(beside, name))
            sync_all(beside)
        except (tf.errors.OpError, OSError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise unwritable(self.save_path, tf_reason(error)) from None
        with self.held():
            os.rename(beside, self._path(".ready"))
            sync(self.save_path)
            self._finish_move()

    def state(self):
        """The state of the run in save_path, None where there is none; raises UserError where it is damaged."""
        path = self._path(STATE)
        try:
            with open(path) as file:
                state = json.load(file)
            if not (isinstance(state, dict) and all(isinstance(state.get(part), dict) for part in ("run", "state"))):
                raise ValueError("it does not hold the state of a run")
            return state
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise UserError("%s can't be read (%s); train again without --resume" % (path, error)) from None

    def has(self, name):
        """Whether there is a checkpoint `name`, BEST or LATEST."""
        return os.path.exists(self._path(name) + ".index")

    def restore(self, session, name):
        """Restores the checkpoint `name`, BEST or LATEST; raises UserError where it is missing or does not fit.

        To be called in `held`, where another process may write checkpoints.
        """
        path = self._path(name)
        if not self.has(name):
            raise UserError("no checkpoint %s; train first: python train.py" % path)
        try:
            with plain_path(self.save_path) as folder:
                plain = os.path.join(folder, name)
                _check_shapes(session.graph, tf.train.load_checkpoint(plain).get_variable_to_shape_map())
                self._saver.restore(session, plain)
        except (tf.errors.OpError, ValueError) as error:
            raise UserError("checkpoint %s does not fit or is damaged (%s); train again: python train.py"
                            % (path, tf_reason(error).replace(plain, path))) from None

    def finish(self):
        """Marks the run as finished, with its row written."""
        with replacing(self._path(STATE), "w") as file:
            json.dump(dict(self.state(), finished=True), file, indent=1)

    def set_aside(self, others):
        """Moves an earlier run's files, `others` too, into save_path/earlier_<date>; returns that folder, or None."""
        with self.held():
            names = os.listdir(self.save_path) if os.path.isdir(self.save_path) else []
            # The state first: without it there is nothing to resume from, should this process be killed on the way.
            names = [STATE] + [name for name in names if name.startswith((BEST + ".", LATEST + ".", "events.out."))
                               or name in others]
            return set_aside(map(self._path, names), self._path("earlier"))
