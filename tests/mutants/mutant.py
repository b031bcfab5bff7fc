"""What a planted bug is: one change to one source file, and the tests that must notice it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutant:
    """A bug to plant.

    Parameters
    ----------
    name : str
        Lower case with hyphens, as the command line takes it.
    entry : str
        The line of ``planted.LISTED`` it stands for, or the id of the guarantee it would break.
    file : str
        Source file from the root, with slashes.
    before, after : str
        Text that is in the file exactly once, and what takes its place.
    tests : tuple of str
        Node ids ``path::test`` or ``path::test[case]``. Each passes on the sound tree; at least one fails
        by its own judgment once the bug is planted.
    """

    name: str
    entry: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]

    def plant(self, source: str) -> str:
        """Return the source with the bug in it.

        Raises
        ------
        ValueError
            If the text to change is not there exactly once: the bug would not be planted.
        """
        found = source.count(self.before)
        if found != 1:
            raise ValueError(
                f"{self.name}: the text to change is {found} times in {self.file}; it must be there once"
            )
        return source.replace(self.before, self.after)
