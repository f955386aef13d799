"""`python killed_run.py STEP DELAY <options>`: biqa.run that gets a SIGKILL so many seconds after its training step number STEP (from 1) has begun."""

import os
import signal
import sys
import threading

from biqa import config as schema
from biqa import run
from biqa.doors.opening import open_door
from biqa.stages.base import StageModule

step, delay = int(sys.argv[1]), float(sys.argv[2])
training_step = StageModule.training_step


def counted(module: StageModule, *arguments):
    if module.global_step == step - 1:
        threading.Timer(delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return training_step(module, *arguments)


StageModule.training_step = counted
sys.argv = ["biqa.run", *run.numbers_to_words(sys.argv[3:])]
schema.register()
open_door(run.main)
