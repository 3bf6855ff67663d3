// SPDX-License-Identifier: MIT OR Apache-2.0
//! One path after another is pulled under a verifying load; no host notices.
//!
//! A row per fault, over two and four paths, without and with frequent flushes. A row
//! passes only if the fault took place on every path, the load went on meanwhile, and
//! every path is up and carries requests afterwards.

use crate::rig::{DEVICE, Fault, PATHS, RigOptions};

macro_rules! pulls {
    ($($name:ident: $fault:expr, $paths:expr, $fio:expr;)*) => {
        $(
            #[test]
            fn $name() {
                pull_each($fault, $paths, &$fio);
            }
        )*
    };
}

pulls! {
    kill_over_two_paths: Fault::Kill, 2, [];
    stop_over_two_paths: Fault::Stop, 2, [];
    reset_over_two_paths: Fault::Reset, 2, [];
    link_down_over_two_paths: Fault::LinkDown, 2, [];
    drop_to_storage_over_two_paths: Fault::DropToStorage, 2, [];
    drop_from_storage_over_two_paths: Fault::DropFromStorage, 2, [];
    eio_over_two_paths: Fault::Eio, 2, [];
    cut_payload_over_two_paths: Fault::CutPayload, 2, [];

    kill_over_four_paths: Fault::Kill, 4, [];
    stop_over_four_paths: Fault::Stop, 4, [];
    reset_over_four_paths: Fault::Reset, 4, [];
    link_down_over_four_paths: Fault::LinkDown, 4, [];
    drop_to_storage_over_four_paths: Fault::DropToStorage, 4, [];
    drop_from_storage_over_four_paths: Fault::DropFromStorage, 4, [];
    eio_over_four_paths: Fault::Eio, 4, [];
    cut_payload_over_four_paths: Fault::CutPayload, 4, [];

    kill_with_flushes: Fault::Kill, 2, ["--fsync=32"];
    stop_with_flushes: Fault::Stop, 2, ["--fsync=32"];
    reset_with_flushes: Fault::Reset, 2, ["--fsync=32"];
    link_down_with_flushes: Fault::LinkDown, 2, ["--fsync=32"];
    drop_to_storage_with_flushes: Fault::DropToStorage, 2, ["--fsync=32"];
    drop_from_storage_with_flushes: Fault::DropFromStorage, 2, ["--fsync=32"];
    eio_with_flushes: Fault::Eio, 2, ["--fsync=32"];
    cut_payload_with_flushes: Fault::CutPayload, 2, ["--fsync=32"];

    kill_with_flushes_over_four_paths: Fault::Kill, 4, ["--fsync=32"];
    stop_with_flushes_over_four_paths: Fault::Stop, 4, ["--fsync=32"];
    reset_with_flushes_over_four_paths: Fault::Reset, 4, ["--fsync=32"];
    link_down_with_flushes_over_four_paths: Fault::LinkDown, 4, ["--fsync=32"];
    drop_to_storage_with_flushes_over_four_paths: Fault::DropToStorage, 4, ["--fsync=32"];
    drop_from_storage_with_flushes_over_four_paths: Fault::DropFromStorage, 4, ["--fsync=32"];
    eio_with_flushes_over_four_paths: Fault::Eio, 4, ["--fsync=32"];
    cut_payload_with_flushes_over_four_paths: Fault::CutPayload, 4, ["--fsync=32"];
}

fn pull_each(fault: Fault, paths: usize, fio_arguments: &[&str]) {
    let mut rig = RigOptions::new(paths).for_fault(fault).start();
    let fio = fio_arguments.iter().fold(rig.fio(), |fio, argument| fio.arg(argument)).start(&rig.dir, "fio");
    let load = rig.load();
    rig.await_all_in_use();

    for (path, name) in PATHS.iter().enumerate().take(paths) {
        rig.break_path(path, fault);
        load.await_progress(300);
        rig.heal(path, fault);
        // It carries requests again, if only the share of a path on probation; the next
        // one goes down then, so the last path standing may be one on probation.
        let before = rig.node.path(DEVICE, name).completed();
        rig.node.await_path(DEVICE, name, "to carry requests again", |path| path.completed() > before + 20);
    }

    rig.await_all_in_use();
    let fio = fio.finish();
    fio.assert_clean();
    assert!(fio_arguments.is_empty() || fio.flushes > 0, "fio never flushed: {fio:?}");
    let report = load.finish();
    report.assert_clean();
    println!("{fault:?} over {paths} paths: longest silence {} ms", report.longest_gap.as_millis());
}
