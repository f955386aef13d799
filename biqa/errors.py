"""What goes wrong and can be put in words. Each message says what is wrong, where, and what to do next, and a door prints it without a stack trace.

Mistakes that the user can mend in the command end with exit code 2, a machine that is not enough for a sound command with 1.
"""


class UserError(ValueError):
    """Base of every mistake a user can mend: shown as one message, without a stack trace, exit code 2."""


class DatasetNotFound(UserError):
    """The data root, a label file or a column that a reader needs is not there."""


class BadRecord(UserError):
    """One row or one image is unusable: missing file, undecodable pixels, a score that is NaN or outside the declared scale."""


class EmptySplit(UserError):
    """A split that the run needs holds no image."""


class AnswerLeak(UserError):
    """A description target names a level, a synonym of one, or a verdict on quality (METHOD.md section 2)."""


class TeacherUnavailable(UserError):
    """A teacher cannot write descriptions: its server, key, package or memory fails it, or the file in which its texts are kept cannot be used."""


class RunNotFound(UserError):
    """A run that this one starts from (`stage.init_from`, or the stage 1 of a stage 2) is not there, or is not finished."""


class RunExists(UserError):
    """The run folder is there already, with another config or unfinished."""


class IncompatibleChoice(UserError):
    """Options that cannot go together, or a value that makes no sense."""


class NoNumbers(UserError):
    """A model computes what is no number (NaN, infinity): whatever it says is worth nothing."""


class Diverged(UserError):
    """Training gives a loss or weights that are no numbers: it cannot go on with these options. What was learnt before is kept."""


class MachineLimit(RuntimeError):
    """Base of what a larger or emptier machine would not have: shown as one message, without a stack trace, exit code 1. The run can go on."""


class NoDiskSpace(MachineLimit):
    """A file cannot be written: no space, no quota, or larger than files may be."""


class DiskFault(MachineLimit):
    """A file cannot be written or read: the disk or its server fails, or takes nothing any more."""


class WorkerDied(MachineLimit):
    """A process that this one has started for a part of the work was killed."""


class OutOfMemory(MachineLimit):
    """The memory of the GPU or of the host is not enough."""
