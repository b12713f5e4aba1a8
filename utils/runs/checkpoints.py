"""Checkpoints that are whole or not there.

    save_path/ckpt.*      the variables with the best GAUC so far
    save_path/latest.*    the variables at the latest evaluation, to resume from
    save_path/state.json  what run they belong to, and where it stands

They are written into a folder beside, which becomes `.ready` by one rename and is then emptied into save_path. A run
that is killed on the way leaves either the old files, or a `.ready` folder that the next reader empties. A lock keeps
those who read from seeing files of two checkpoints.
"""
import json
import os
import shutil

from utils.files import UserError, replacing, set_aside, unwritable
from utils.runs.locks import waited_for
from utils.tf1 import tf

BEST, LATEST = "ckpt", "latest"
STATE = "state.json"


def _reason(error):
    """Why a session's call raised `error`: TensorFlow says so before the node that it names, 2.x after other lines."""
    return str(error).split("\n\t [[")[0].splitlines()[-1]


class Checkpoints:
    """The checkpoints in the folder `save_path`, written and restored by `saver`."""

    def __init__(self, save_path, saver):
        self.save_path, self._saver = save_path, saver
        with self._alone():
            self._finish_move()

    def _path(self, name):
        return os.path.join(self.save_path, name)

    def _alone(self):
        return waited_for(self._path(".checkpoints.lock"))

    def _finish_move(self):
        ready = self._path(".ready")
        if os.path.isdir(ready):
            for name in sorted(os.listdir(ready)):
                os.replace(os.path.join(ready, name), self._path(name))
            os.rmdir(ready)

    def save(self, session, state, best):
        """Writes the latest variables and `state`, a JSON object; `best` says that they are the best so far too.

        Raises:
          UserError: they can't be written; what was there before stays.
        """
        beside = self._path(".writing")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            self._saver.save(session, os.path.join(beside, LATEST), write_meta_graph=False, write_state=False)
            if best:
                for name in os.listdir(beside):
                    shutil.copyfile(os.path.join(beside, name), os.path.join(beside, name.replace(LATEST, BEST, 1)))
            with open(os.path.join(beside, STATE), "w") as file:
                json.dump(state, file, indent=1)
        except (tf.errors.OpError, OSError) as error:
            shutil.rmtree(beside, ignore_errors=True)
            raise unwritable(self.save_path, _reason(error)) from None
        with self._alone():
            os.rename(beside, self._path(".ready"))
            self._finish_move()

    def state(self):
        """Returns the state of the run in save_path, or None where there is none."""
        try:
            with open(self._path(STATE)) as file:
                state = json.load(file)
            if not (isinstance(state, dict) and all(isinstance(state.get(part), dict) for part in ("run", "state"))):
                raise ValueError("it does not hold the state of a run")
            return state
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise UserError("%s can't be read (%s); train again without --resume" % (self._path(STATE), error)) from None

    def restore(self, session, name):
        """Restores the checkpoint `name`, BEST or LATEST.

        Raises:
          UserError: there is none, or it does not fit the model.
        """
        if not os.path.exists(self._path(name) + ".index"):
            raise UserError("no checkpoint %s; train first: python train.py" % self._path(name))
        try:
            with self._alone():
                self._saver.restore(session, self._path(name))
        except (tf.errors.OpError, ValueError) as error:
            raise UserError("checkpoint %s does not fit or is damaged (%s); train again: python train.py"
                            % (self._path(name), _reason(error))) from None

    def finish(self):
        """Marks the run as finished, with its row written."""
        state = dict(self.state(), finished=True)
        with replacing(self._path(STATE), "w") as file:
            json.dump(state, file, indent=1)

    def set_aside(self, others=()):
        """Moves an earlier run's files into save_path/earlier_<date>; returns the new folder, or None without one.

        `others` are the names of a run's further files.
        """
        names = os.listdir(self.save_path) if os.path.isdir(self.save_path) else []
        # The state first: without it there is nothing to resume from, should this process be killed on the way.
        ours = [STATE] + [name for name in names if name.startswith((BEST + ".", LATEST + ".", "events.out."))
                          or name in others]
        return set_aside([self._path(name) for name in ours], self._path("earlier"))
