"""The virtual machine: its image is made when it must be and only then, a broken one is not used; what ran where."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from topo.cluster.patience import patience
from vm import VmError, checkout, image, machine, ran, recipe

SETUP = """
[options]
install_requires =
    # why
    one==1
[options.extras_require]
test =
    two>=2,<3
"""
ONE = recipe.recipe("bookworm", ["nginx"], ["wheel"], SETUP, "#!/bin/bash\n")
CHANGES: dict[str, Callable[[recipe.Recipe], recipe.Recipe]] = {
    "release": lambda r: replace(r, release="trixie"),
    "packages": lambda r: replace(r, packages=(*r.packages, "frr")),
    "build": lambda r: replace(r, build=("wheel==0.40",)),
    "requirements": lambda r: replace(r, requirements=("one==2", "two>=2,<3")),
    "init": lambda r: replace(r, init=r.init + "true\n"),
}


def test_a_recipe_has_what_the_project_needs_and_what_a_machine_needs() -> None:
    assert ONE.requirements == ("one==1", "two>=2,<3")
    assert {"nginx", "linux-image-amd64"} <= set(ONE.packages)
    command = recipe.bootstrap(ONE, Path("/a b"), None)
    assert command[-2:] == ["bookworm", "-"] and any("nginx" in word for word in command)
    assert "--customize-hook=upload '/a b/init' /sbin/vm-init" in command
    assert "'two>=2,<3'" in recipe.virtual_environment(ONE)


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_changes_a_recipe_changes_its_key(what: str) -> None:
    assert CHANGES[what](ONE).key() != ONE.key() == replace(ONE).key()


def test_a_release_that_nobody_tried_is_refused() -> None:
    with pytest.raises(ValueError, match="VM_RELEASE=sid: expected bookworm or trixie"):
        recipe.recipe("sid", [], [], SETUP, "")


@pytest.fixture
def builders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the two programs that build: each build is a line of the file that is returned."""
    programs, built = tmp_path / "bin", tmp_path / "built"
    programs.mkdir()
    tree = f"""#!/bin/bash
echo "$$" >> {built}
for word; do case $word in *download*) set -- $word; echo kernel > "$3";; esac; done
echo tree; exit "${{STATUS:-0}}"
"""
    for name, text in {"mmdebstrap": tree, "tar2sqfs": '#!/bin/bash\ncat > "${@: -1}"\n'}.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    # Without namespaces of their own, so that this needs no rights.
    (programs / "unshare").write_text('#!/bin/bash\nwhile [[ $1 == --* ]]; do shift; done\nexec "$@"\n')
    (programs / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    (tmp_path / "source").mkdir()
    return built


def builds(built: Path) -> int:
    return len(built.read_text().splitlines())


def test_an_image_is_made_once_and_again_when_the_recipe_is_another(builders: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = image.made(ONE, tmp_path / "source", cache)
    assert first.root.read_text() == "tree\n" and first.kernel.read_text() == first.initrd.read_text() == "kernel\n"
    assert image.made(ONE, tmp_path / "source", cache) == first and builds(builders) == 1
    image.made(replace(ONE, packages=("frr",)), tmp_path / "source", cache)
    assert builds(builders) == 2


@pytest.mark.parametrize("name", [recipe.KERNEL, recipe.INITRD, image.ROOT, image.STAMP])
@pytest.mark.parametrize("how", ["gone", "cut off", "changed"])
def test_an_image_that_is_not_whole_is_made_again(builders: Path, tmp_path: Path, name: str, how: str) -> None:
    cache = tmp_path / "cache"
    image.made(ONE, tmp_path / "source", cache)
    file = cache / "bookworm" / name
    text = file.read_text()
    file.unlink()
    if how != "gone":
        file.write_text(text[:-2] if how == "cut off" else "x" + text[1:])
    made = image.made(ONE, tmp_path / "source", cache)
    assert builds(builders) == 2 and made.root.read_text() == "tree\n"


def test_a_build_that_fails_leaves_no_image_and_the_next_begins_anew(
    builders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    monkeypatch.setenv("STATUS", "1")
    with pytest.raises(VmError, match="no image could be made"):
        image.made(ONE, tmp_path / "source", cache)
    assert not (cache / "bookworm").exists()
    (cache / "bookworm.partial" / "left").mkdir()
    monkeypatch.delenv("STATUS")
    image.made(ONE, tmp_path / "source", cache)
    assert [p.name for p in sorted((cache / "bookworm").iterdir())] == sorted(
        [recipe.KERNEL, recipe.INITRD, image.ROOT, image.STAMP]
    )


def test_the_checkout_goes_in_as_it_is_without_what_can_be_made_again(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for name in ("topo/a.py", ".git/x", ".venv/x", ".cache/vm/x", "results/README.md", "results/run-1/x"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("here")
    checkout.pack(source, tmp_path / "a.tar")
    target.mkdir()
    checkout.unpack(tmp_path / "a.tar", target)
    found = sorted(str(p.relative_to(target)) for p in target.rglob("*") if p.is_file())
    assert [name for name in found if "__pycache__" not in name] == ["results/README.md", "topo/a.py"]
    assert any(name.startswith("topo/__pycache__/a.") for name in found)


def test_what_comes_out_is_plain_files_inside_of_the_checkout(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("kept")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in ("results/run/result.json", "../secret", str(tmp_path / "secret")):
            entry = tarfile.TarInfo(name)
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"sent"))
    checkout.unpack(tmp_path / "a.tar", tmp_path / "source")
    assert (tmp_path / "source/results/run/result.json").read_text() == "sent"
    assert (tmp_path / "secret").read_text() == "kept"


@pytest.mark.parametrize(
    ("qemu", "expected"),
    [
        ("exit 0", "KVM"),
        ("echo no such MSR >&2; exit 1", "emulation"),
        ("exec sleep 60", "emulation"),
    ],
)
def test_kvm_is_used_only_where_a_kernel_really_runs_in_it(
    qemu: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    programs, device = tmp_path / "bin", tmp_path / "kvm-device"
    programs.mkdir()
    (programs / "qemu-system-x86_64").write_text(f"#!/bin/bash\n{qemu}\n")
    (programs / "qemu-system-x86_64").chmod(0o755)
    device.touch()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(machine, "PROBED_WITHIN", 1)
    monkeypatch.setattr(machine, "DEVICE", device)
    files = image.Image(tmp_path / "k", tmp_path / "i", tmp_path / "r")
    assert machine.quick(files, tmp_path).name == expected
    assert ("no KVM" in capsys.readouterr().out) == (expected != "KVM")
    # Known until the next boot of this machine: qemu is not asked again.
    (programs / "qemu-system-x86_64").unlink()
    assert machine.quick(files, tmp_path).name == expected


def test_a_machine_without_kvm_is_emulated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DEVICE", tmp_path / "none")
    files = image.Image(tmp_path / "k", tmp_path / "i", tmp_path / "r")
    assert machine.quick(files, tmp_path) is machine.EMULATED


def report(folder: Path, name: str, **cases: str) -> ran.Report:
    """A report with these tests: skipped for a reason, or run on a kernel."""
    body = ""
    for test, said in cases.items():
        kernel = f'<properties><property name="kernel" value="{said}"/></properties>'
        inside = f'<skipped message="{said[1:]}"/>' if said[0] == "-" else kernel
        body += f'<testcase classname="tests.a" name="{test}">{inside}</testcase>'
    (folder / f"{name}.xml").write_text(f"<testsuites><testsuite>{body}</testsuite></testsuites>")
    return ran.read(folder / f"{name}.xml")


def test_what_ran_nowhere_is_named_and_fails(tmp_path: Path) -> None:
    host = report(tmp_path, "host", one="6.18", two="-no ip_vs", three="-no netem")
    inside = report(tmp_path, "bookworm", two="6.1", three="-no netem either")
    said, good = ran.lines([host, inside], {})
    assert said == [
        "host: 1 tests on kernel 6.18, datapath none",
        "bookworm: 1 tests on kernel 6.1, datapath none",
        "ran nowhere: tests.a::three: no netem",
    ]
    assert not good


def test_what_runs_at_night_is_said_only_where_it_did_not_run(tmp_path: Path) -> None:
    host, inside = report(tmp_path, "host", one="6.18", two="-why"), report(tmp_path, "vm", two="-why")
    later = {"tests.a::two": "slow"}
    said, good = ran.lines([host, inside], later)
    assert good and "only by make nightly: 1 of tests.a::two: slow" in said
    said, good = ran.lines([host, report(tmp_path, "vm", two="6.1")], later)
    assert good and not any("nightly" in line for line in said)


def test_what_make_nightly_runs_is_there_and_has_a_reason() -> None:
    assert ran.nightly("# why\na/b.py  # slow\na/c.py::d  # too\n") == {"a.b::": "slow", "a.c::d": "too"}
    root = Path(__file__).parents[2]
    text = (root / "tests" / "nightly.txt").read_text()
    assert ran.nightly(text) and all(reason for reason in ran.nightly(text).values())
    named = [line.partition("::")[0].partition(" ")[0] for line in text.splitlines() if line[0] != "#"]
    assert [name for name in named if not (root / name).is_file()] == []


def test_no_report_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(VmError, match="no report of pytest"):
        ran.read(tmp_path / "host.xml")
    assert not ran.lines([ran.Report("host")], {})[1]


def test_limits_are_longer_on_a_slow_machine_and_never_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    for said, seconds in (("1", 20.0), ("10", 200.0), ("0.1", 20.0)):
        monkeypatch.setenv("MININETES_SLOWNESS", said)
        assert patience(20) == seconds


def test_the_makefile_and_the_image_name_the_same_packages_of_python() -> None:
    root = Path(__file__).parents[2]
    wanted = recipe.recipe("trixie", [], [], (root / "setup.cfg").read_text(), (root / "vm" / "init").read_text())
    assert "ryu==4.34" in wanted.requirements and any(r.startswith("pytest>=") for r in wanted.requirements)
    assert json.dumps(wanted.init).startswith('"#!/bin/bash')
