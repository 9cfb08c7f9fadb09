"""What the engines under test have in common."""
import itertools
import os

from nest import Nest


class Engine:
    """An engine in a nest of its own. Subclasses: `packages`, `prelude` (bash in front of each case), `start`, `clean`, `cases`,
    `remains`."""
    packages = ()
    nest_kind = Nest
    prelude = ""

    def __init__(self, quark, flags):
        self.nest = self.nest_kind(quark, flags)
        self.numbers = itertools.count(1)
        try:
            self.start()
        except BaseException:
            self.nest.end()
            raise

    def next_number(self):
        return next(self.numbers)

    def environment(self, runtime, name):
        return {"RUNTIME": runtime, "N": name, "DIR": self.nest.dir, "QUARK": self.nest.quark, "NEST": self.nest.name}

    def script(self, runtime, name, text, timeout):
        """Runs a case's script with one of the runtimes, in a directory of its own."""
        os.makedirs(f"{self.nest.dir}/{name}", exist_ok=True)
        return self.nest.script(self.prelude + f"cd $DIR/{name}\n" + text, timeout, **self.environment(runtime, name))

    def clean(self, runtime, name):
        """Removes what a case left."""
        self.nest.script(self.prelude + self.cleaning, **self.environment(runtime, name))

    def end(self):
        self.nest.end()
