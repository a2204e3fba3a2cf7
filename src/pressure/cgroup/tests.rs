//! Tests of the parsers on texts, and of the source on copies of machines' files.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory for this test only, removed when dropped.
struct Machine(PathBuf);

impl Machine {
    fn new(files: &[(&str, &str)]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        // ORDERING: Relaxed. The number only has to be unique.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let machine = Machine(std::env::temp_dir().join(format!("cgroup-{}-{number}", std::process::id())));
        files.iter().for_each(|(path, text)| machine.write(path, text));
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn level(&self, version: Version) -> Level {
        Cgroup::under(&self.0, version).unwrap().level().unwrap().unwrap()
    }

    fn missing(&self, version: Version) -> String {
        Cgroup::under(&self.0, version).unwrap_err().to_string()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 master:3 - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
const V2_MOUNTS: &str = "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
const MIB: u64 = 1 << 20;

#[test]
fn groups_are_found_by_controller_and_by_number() {
    let text = "9:name=systemd:/\n4:cpu,memory:/a:b/c\n3:cpuset:/memory\n0::/user.slice\n";
    assert_eq!(group_in(text, Version::V1), Some(Path::new("/a:b/c")));
    assert_eq!(group_in(text, Version::V2), Some(Path::new("/user.slice")));
    assert_eq!(group_in("4:memory\nnonsense\n", Version::V1), None);
    assert_eq!(group_in("4:memory:/\n", Version::V2), None);
}

#[test]
fn mounts_are_found_by_kind_and_options() {
    let mount = |root: &str, point: &str| Mount { root: root.into(), point: point.into() };
    assert_eq!(mounts_in(V1_MOUNTS, Version::V1), [mount("/", "/sys/fs/cgroup/memory")]);
    assert_eq!(mounts_in(V1_MOUNTS, Version::V2), [mount("/", "/sys/fs/cgroup/unified")]);
    assert_eq!(mounts_in(V2_MOUNTS, Version::V1), []);
    let odd = "1 2 0:3 /a\\040b /mnt/c\\134d\\9 rw - cgroup2 none rw\nshort\n1 2 - cgroup2 none\n";
    assert_eq!(mounts_in(odd, Version::V2), [mount("/a b", "/mnt/c\\d\\9")]);
}

#[test]
fn a_group_is_placed_below_the_mounted_group() {
    let place = |root: &str, group: &str| {
        let mounts = [Mount { root: root.into(), point: "/cg".into() }];
        place_in(&mounts, Path::new(group)).map(|place| place.own).unwrap()
    };
    assert_eq!(place("/", "/a/b"), Path::new("/cg/a/b"));
    assert_eq!(place("/", "/"), Path::new("/cg"));
    // A container. Its own group is mounted, but its path is given as seen from the host.
    assert_eq!(place("/docker/1", "/docker/1"), Path::new("/cg"));
    assert_eq!(place("/docker/1", "/docker/1/x"), Path::new("/cg/x"));
    assert_eq!(place("/docker/1", "/docker/10"), Path::new("/cg"));
    // A group of another namespace: the process was moved out of its own.
    assert_eq!(place("/", "/../other"), Path::new("/cg"));
    assert_eq!(place_in(&[], Path::new("/")), None);
}

#[test]
fn version_2_takes_the_fullest_group_and_the_lower_limit() {
    let machine = Machine::new(&[
        ("proc/self/cgroup", "0::/app/web\n"),
        ("proc/self/mountinfo", V2_MOUNTS),
        ("sys/fs/cgroup/app/memory.max", "1073741824\n"),
        ("sys/fs/cgroup/app/memory.high", "max\n"),
        ("sys/fs/cgroup/app/memory.current", "104857600\n"),
        ("sys/fs/cgroup/app/memory.stat", "anon 1\ninactive_file 0\n"),
        ("sys/fs/cgroup/app/web/memory.max", "268435456\n"),
        ("sys/fs/cgroup/app/web/memory.high", "209715200\n"),
        ("sys/fs/cgroup/app/web/memory.current", "104857600\n"),
        ("sys/fs/cgroup/app/web/memory.stat", "anon 1\ninactive_file 52428800\nactive_file 7\n"),
    ]);
    // Below the mark the page cache is not read.
    let level = machine.level(Version::V2);
    assert_eq!((level.used, level.limit, level.high, level.low), (100 * MIB, 200 * MIB, 170 * MIB, 160 * MIB));
    // Above it, page cache that can be dropped does not count.
    machine.write("sys/fs/cgroup/app/web/memory.current", "199229440\n");
    assert_eq!(machine.level(Version::V2).used, 140 * MIB);
    // The group above is the fullest.
    machine.write("sys/fs/cgroup/app/memory.current", "1073741824\n");
    assert_eq!(machine.level(Version::V2).limit, 1024 * MIB);
}

#[test]
fn limits_are_read_again_at_each_check() {
    let machine = Machine::new(&[
        ("proc/self/cgroup", "0::/\n"),
        ("proc/self/mountinfo", V2_MOUNTS),
        ("sys/fs/cgroup/memory.max", "268435456\n"),
        ("sys/fs/cgroup/memory.current", "1048576\n"),
    ]);
    let mut group = Cgroup::under(&machine.0, Version::V2).unwrap();
    machine.write("sys/fs/cgroup/memory.max", "134217728");
    assert_eq!(group.level().unwrap().unwrap().limit, 128 * MIB);
    machine.write("sys/fs/cgroup/memory.max", "max");
    assert_eq!(group.check(false).unwrap(), Reading::Quiet);
    machine.write("sys/fs/cgroup/memory.max", "many");
    let error = group.check(false).unwrap_err();
    assert!(error.reason().ends_with("memory.max: not a number of bytes"), "{error}");
    fs::remove_file(machine.0.join("sys/fs/cgroup/memory.max")).unwrap();
    assert_eq!(group.check(false).unwrap(), Reading::Quiet);
}

#[test]
fn version_1_reads_its_own_files() {
    let machine = Machine::new(&[
        ("proc/self/cgroup", "4:memory:/box\n0::/\n"),
        ("proc/self/mountinfo", V1_MOUNTS),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ("sys/fs/cgroup/memory/box/memory.limit_in_bytes", "104857600\n"),
        ("sys/fs/cgroup/memory/box/memory.usage_in_bytes", "103809024\n"),
        ("sys/fs/cgroup/memory/box/memory.stat", "inactive_file 1\ntotal_inactive_file 5242880\n"),
    ]);
    let level = machine.level(Version::V1);
    assert_eq!((level.used, level.limit), (94 * MIB, 100 * MIB));
    assert!(machine.missing(Version::V2).starts_with("cgroup v2 is not available: no limit on "));
}

#[test]
fn a_container_that_sees_its_own_group_is_found() {
    let mounts = "700 690 0:32 /docker/ab /sys/fs/cgroup/memory ro,nosuid master:11 - cgroup cgroup rw,memory\n";
    let machine = Machine::new(&[
        ("proc/self/cgroup", "4:memory:/docker/ab\n"),
        ("proc/self/mountinfo", mounts),
        ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
        ("sys/fs/cgroup/memory/memory.usage_in_bytes", "1048576\n"),
    ]);
    assert_eq!(machine.level(Version::V1).limit, 64 * MIB);
}

#[test]
fn missing_files_are_reported_by_name() {
    let machine = Machine::new(&[]);
    let missing = machine.missing(Version::V2);
    assert!(missing.starts_with("cgroup v2 is not available: ") && missing.contains("proc/self/cgroup"), "{missing}");
    machine.write("proc/self/cgroup", "0::/\n");
    machine.write("proc/self/mountinfo", "");
    let none = "no such hierarchy with a controller for memory is mounted";
    assert_eq!(machine.missing(Version::V2), format!("cgroup v2 is not available: {none}"));
    machine.write("proc/self/mountinfo", V2_MOUNTS);
    // The uppermost group has no files for limits.
    let missing = machine.missing(Version::V2);
    assert!(missing.contains("no limit on") && missing.ends_with("and above"), "{missing}");
    machine.write("sys/fs/cgroup/memory.max", "1048576");
    let group = Cgroup::under(&machine.0, Version::V2).unwrap();
    assert!(group.level().unwrap_err().reason().contains("memory.current"));
}
