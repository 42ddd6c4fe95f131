"""How submissions are executed: a cell that ends or blocks its kernel costs its own task.

nbgrader's own way gives up on a submission whose kernel dies, and fails every cell after one
that cannot be interrupted. Here such a cell gets an error, a fresh kernel runs the cells
before it once more (without those that ended badly), and the cells after it go on from there.
This is no protection against students who cheat: they share the kernel with the checks.
"""

import copy
import queue
import time

from jupyter_core.utils import run_sync
from nbformat import NotebookNode, v4
from nbgrader import preprocessors
from traitlets import Integer

ENDED = (
    RuntimeError,
    TimeoutError,
)  # nbclient: it died, or its messages did not arrive


class Execute(preprocessors.Execute):
    """Run every cell of a notebook, whatever one of them does to the kernel."""

    grace = Integer(5, help="seconds that an interrupted cell has to stop").tag(
        config=True
    )

    def preprocess(self, nb, resources, km=None):
        """Run the whole notebook."""
        self.shutdown_kernel = "immediate"
        self.bad: set[int] = set()  # cells that ended the kernel or took too long
        return super().preprocess(nb, resources, km)

    def preprocess_cell(self, cell, resources, index):
        """Run one cell; afterwards there is a kernel that answers."""
        if not self._run(cell, resources, index):
            self._start_again(index, resources)
        return cell, resources

    def _run(self, cell: NotebookNode, resources, index: int) -> bool:
        """Run one cell; whether the kernel is still of use."""
        try:
            super().preprocess_cell(cell, resources, index)
        except ENDED:
            said = "This cell ended the kernel; the cells after it ran in another."
            cell.outputs.append(v4.new_output("error", ename="Ended", evalue=said))
            cell.outputs[-1].traceback = [said]
            self.bad.add(index)
            return False
        names = {output.get("ename") for output in cell.get("outputs", [])}
        if self.error_on_timeout["ename"] not in names:
            return True
        self.bad.add(index)
        return self._answers()

    def _answers(self) -> bool:
        """Whether the kernel is free again within the time of grace."""
        asked = self.kc.kernel_info()
        end = time.monotonic() + self.grace
        while (left := end - time.monotonic()) > 0:
            try:
                reply = run_sync(self.kc.get_shell_msg)(timeout=left)
            except queue.Empty:
                return False
            if reply["parent_header"].get("msg_id") == asked:
                return True
        return False

    def _start_again(self, index: int, resources) -> None:
        """A fresh kernel in the state that the good cells before `index` left."""
        while True:
            self._cleanup_kernel()
            self.km = self.create_kernel_manager()
            self.start_new_kernel()
            self.start_new_kernel_client()
            if all(self._replay(place, resources) for place in range(index)):
                return

    def _replay(self, place: int, resources) -> bool:
        """Run a good cell once more; what was stored of it stays."""
        stored = self.nb.cells[place]
        if place in self.bad or stored.cell_type != "code":
            return True
        alive = self._run(copy.deepcopy(stored), resources, place)
        self.nb.cells[place] = stored
        return alive
