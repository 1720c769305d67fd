"""train.py, watched: what test_distributed.py starts by mpirun.

    mpirun -np 2 python tests/distributed_program.py FOLDER [exact] OPTION ..

OPTIONs are train.py's. Each rank writes ``FOLDER/pid-<rank>``, ``FOLDER/steps-<rank>.jsonl``, a
line before each step, and at its end ``FOLDER/end-<rank>.json`` with digests of all its variables.
With ``exact`` batch norm stays in inference mode and plain gradient descent takes Adam's place, so
that a step's result is a linear function of the batch's gradients.
"""

import hashlib
import json
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import train  # noqa: E402
from darknet_face.runtime import distributed  # noqa: E402
from darknet_face.runtime.session import tf  # noqa: E402


class WatchedTrainer(train.Trainer):
    folder = None

    def path(self, name):
        return os.path.join(self.folder, name.format(distributed.rank()))

    def run(self):
        with open(self.path("pid-{}"), "w") as stream:
            stream.write(str(os.getpid()))
        super().run()
        with self.session.graph.as_default():
            variables = tf.global_variables()
        digests = {variable.op.name: hashlib.sha256(value.tobytes()).hexdigest() for variable, value
                   in zip(variables, self.session.run(variables))}
        with open(self.path("end-{}.json"), "w") as stream:
            json.dump(digests, stream)

    def _feeds(self, end):
        for feed in super()._feeds(end):
            rate = float(self.session.run(self.net.learning_rate))
            share = self.schedule.share(self.step, distributed.rank())
            line = {"step": self.step, "epoch": share.epoch, "ranks": distributed.size(),
                    "rate": rate, "weight": share.weight,
                    "images": [hashlib.sha256(image.tobytes()).hexdigest()
                               for image in feed[self.net.images]]}
            # Before the step: after it a checkpoint is saved, and a kill in between loses the line.
            with open(self.path("steps-{}.jsonl"), "a") as stream:
                stream.write(json.dumps(line) + "\n")
            yield feed


if __name__ == "__main__":
    WatchedTrainer.folder = sys.argv.pop(1)
    train.Trainer = WatchedTrainer
    if sys.argv[1] == "exact":
        del sys.argv[1]
        build = train.build
        train.build = lambda images, training, **options: build(images, training=False, **options)
        tf.train.AdamOptimizer = tf.train.GradientDescentOptimizer
    train.main()
