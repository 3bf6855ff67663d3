// SPDX-License-Identifier: MIT OR Apache-2.0
//! Each client program doing what people use it for.

use tests_support::{Endpoint, Fio, Json, run, run_status};

use crate::target::Target;

/// Debian's libnbd belongs to Debian's Python, whatever `python3` is first in the path.
const PYTHON: &str = "/usr/bin/python3";

/// All clients, one after the other, on one target; its content is lost.
pub(crate) fn all(target: &Target<'_>) {
    nbdinfo(target);
    nbdcopy(target);
    qemu_img(target);
    qemu_io(target);
    fio(target);
    nbdsh(target);
    nbd_client_list(target);
}

/// libnbd's view of the export.
pub(crate) fn nbdinfo(target: &Target<'_>) {
    let info = Json::parse("nbdinfo", &run("nbdinfo", ["--json".to_owned(), target.uri()]));
    assert_eq!(info.get("protocol").text(), "newstyle-fixed");
    let export = info.get("exports").items().remove(0);
    assert_eq!(export.get("export-size").number(), target.size_bytes, "{export}");
    assert!(!export.get("is_read_only").truth(), "{export}");
    for capability in ["can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero"] {
        assert!(export.get(capability).truth(), "{capability}: {export}");
    }
    let size = run("nbdinfo", ["--size".to_owned(), target.uri()]);
    assert_eq!(size.trim(), target.size_bytes.to_string());
    run("nbdinfo", ["--map".to_owned(), target.uri()]);
    let base = target.endpoint.uri("");
    let listed = run("nbdinfo", ["--list".to_owned(), base]);
    assert!(listed.contains("export="), "{listed}");
}

/// A file goes up and comes back.
pub(crate) fn nbdcopy(target: &Target<'_>) {
    let original = target.dir.patterned_image("original", target.size_bytes, 11);
    let copy = target.dir.text("copy");
    let parallel = ["--connections=4", "--requests=16", "--flush"].map(str::to_owned);
    run("nbdcopy", parallel.iter().cloned().chain([original.clone(), target.uri()]));
    run("nbdcopy", parallel.iter().cloned().chain([target.uri(), copy.clone()]));
    assert_same_files(&original, &copy);
}

/// Images of other formats go up, compare, and come back.
pub(crate) fn qemu_img(target: &Target<'_>) {
    let original = target.dir.patterned_image("original", target.size_bytes, 12);
    let uri = target.uri();
    let info = run("qemu-img", ["info", "--output=json", &uri]);
    let size = Json::parse("qemu-img info", &info).get("virtual-size").number();
    assert_eq!(size, target.size_bytes);
    run("qemu-img", ["convert", "-n", "-W", "-m", "8", "-f", "raw", "-O", "raw", &original, &uri]);
    run("qemu-img", ["compare", "-f", "raw", "-F", "raw", &original, &uri]);
    let packed = target.dir.text("copy.qcow2");
    run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", &uri, &packed]);
    run("qemu-img", ["compare", "-f", "qcow2", "-F", "raw", &packed, &uri]);
    let other = target.dir.patterned_image("other", target.size_bytes, 13);
    let differs = run_status("qemu-img", ["compare", "-f", "raw", "-F", "raw", &other, &uri]);
    assert_eq!(differs.status, 1, "different content compares equal: {differs:?}");
}

/// Patterns, zeroes, discards, FUA, several requests at once.
pub(crate) fn qemu_io(target: &Target<'_>) {
    let uri = target.uri();
    let commands = [
        "write -P 0x11 0 1M",
        "write -f -P 0x22 4k 4k",
        "read -P 0x11 0 4k",
        "read -P 0x22 4k 4k",
        "read -P 0x11 8k 1016k",
        "write -z 64k 64k",
        "read -P 0 64k 64k",
        "write -z -u 128k 64k",
        "read -P 0 128k 64k",
        "discard 256k 64k",
        "aio_write -P 0x33 512k 64k",
        "aio_write -P 0x44 576k 64k",
        "aio_flush",
        "read -P 0x33 512k 64k",
        "read -P 0x44 576k 64k",
        "flush",
    ];
    let arguments = commands.iter().flat_map(|command| ["-c", command]).chain(["-f", "raw", &uri]);
    let output = run_status("qemu-io", arguments);
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(output.status == 0 && !said.contains("failed") && !said.contains("error"), "{said}");
}

/// Random writes, read back and compared by checksum.
pub(crate) fn fio(target: &Target<'_>) {
    let fio = Fio::options(&target.uri()).arg("--time_based=0").arg("--size=4m").arg("--fsync=16");
    let report = fio.run(target.dir, "fio");
    report.assert_clean();
    assert!(report.flushes > 0, "fio never flushed: {report:?}");
}

/// Single requests with each flag, through libnbd, strict mode on.
pub(crate) fn nbdsh(target: &Target<'_>) {
    let script = r#"
import nbd
size = h.get_size()
h.pwrite(b"\x01" * 65536, 0)
h.pwrite(b"\x02" * 512, 512, nbd.CMD_FLAG_FUA)
assert h.pread(512, 512) == b"\x02" * 512
assert h.pread(512, 1024) == b"\x01" * 512
h.zero(4096, 4096)
assert h.pread(4096, 4096) == bytes(4096)
h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(4096, 8192) == bytes(4096)
h.trim(4096, 16384)
h.flush()
if h.can_cache():
    h.cache(4096, 0)
if h.can_df():
    assert h.pread_structured(4096, 0, lambda *a: 0, nbd.CMD_FLAG_DF)[:512] == b"\x01" * 512
h.pwrite(b"\x05", size - 1)
assert h.pread(1, size - 1) == b"\x05"

def refused(call, *numbers):
    try:
        call()
    except nbd.Error as error:
        assert error.errnum in numbers, error
    else:
        raise AssertionError("it was not refused")

import errno
h.set_strict_mode(0)
refused(lambda: h.pread(512, size), errno.EINVAL)
refused(lambda: h.pread(1024, size - 512), errno.EINVAL)
refused(lambda: h.pwrite(bytes(1024), size - 512), errno.ENOSPC, errno.EINVAL)
refused(lambda: h.zero(1024, size - 512), errno.ENOSPC, errno.EINVAL)
refused(lambda: h.trim(512, size), errno.EINVAL)
assert h.pread(512, 512) == b"\x02" * 512
"#;
    python(&[&target.uri()], "h.connect_uri(sys.argv[1])", script);
}

/// Runs a libnbd script with `h` ready to connect.
pub(crate) fn python(arguments: &[&str], connect: &str, script: &str) {
    let whole = format!("import sys, nbd\nh = nbd.NBD()\n{connect}\n{script}\nh.shutdown()\n");
    let words = ["-c", &whole].into_iter().chain(arguments.iter().copied());
    run(PYTHON, words);
}

/// nbd-client's list, over TCP only.
pub(crate) fn nbd_client_list(target: &Target<'_>) {
    let Endpoint::Tcp(address) = &target.endpoint else { return };
    let listed = run("nbd-client", ["-l", &address.ip().to_string(), &address.port().to_string()]);
    assert!(listed.lines().any(|line| line.trim() == target.export), "{listed}");
}

fn assert_same_files(one: &str, other: &str) {
    let read = |path: &str| std::fs::read(path).unwrap_or_else(|e| panic!("{path}: {e}"));
    let (one, other) = (read(one), read(other));
    assert_eq!(one.len(), other.len(), "lengths differ");
    let differing = one.iter().zip(&other).position(|(a, b)| a != b);
    assert_eq!(differing, None, "content differs");
}
