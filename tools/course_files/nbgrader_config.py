"""What nbgrader is told; README.md beside this file says what to type."""

import os
import re
import sys
from pathlib import Path

here = Path(__file__).resolve().parent
sys.path.insert(0, str(here))
programs = str(Path(sys.executable).parent)  # nbgrader calls alembic, which lies there
os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", "")])
from grading import Execute  # noqa: E402
from nbgrader.converters import Autograde  # noqa: E402

c = get_config()  # noqa: F821  (nbgrader provides it)
c.CourseDirectory.course_id = "rlhf"
c.CourseDirectory.root = str(here)

# A cell may take two minutes. One that does not end costs its own task; the others are
# graded all the same (grading.py).
c.Execute.timeout = 120
c.Execute.startup_timeout = 120
usual = Autograde.autograde_preprocessors.default_args[0]
c.Autograde.autograde_preprocessors = [Execute, *usual[1:]]

# zip_collect takes files called STUDENT_01_thermostat.ipynb, alone or in a zip. A name may
# begin with another one (language, language_model), so the longest are tried first.
names = sorted((each.name for each in (here / "source").iterdir()), key=len)[::-1]
c.FileNameCollectorPlugin.named_regexp = (
    rf".*[/\\](?P<student_id>[^/\\]+?)_(?P<file_id>{'|'.join(map(re.escape, names))})"
)
