# Runs the tests of a module, and prints a line for each: @CASE passed|failed|skipped NAME WHY.
import sys
import unittest

out = sys.stdout


class Result(unittest.TestResult):
    def say(self, outcome, test, why=""):
        lines = str(why).strip().splitlines() or [""]
        out.write(f"\n@CASE {outcome} {test.id()} {lines[-1]}\n")
        out.flush()

    def addSuccess(self, test):
        self.say("passed", test)

    def addSkip(self, test, reason):
        self.say("skipped", test, reason)

    def addFailure(self, test, err):
        self.addError(test, err)

    def addError(self, test, err):
        out.write(self._exc_info_to_string(err, test))
        self.say("failed", test, err[1])


unittest.defaultTestLoader.loadTestsFromName(sys.argv[1]).run(Result())
