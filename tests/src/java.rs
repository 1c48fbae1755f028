//! The Java side: class path and driver, fetched and compiled once, and how a JVM is started.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::binary::{scratch, source};

/// The class path of the driver and of Apache's own broker and NameServer; the first call in a target directory asks Maven
/// for the jars and compiles the driver.
pub fn class_path() -> &'static str {
    static PATH: OnceLock<String> = OnceLock::new();
    PATH.get_or_init(|| {
        let dir = scratch().join("java");
        fs::create_dir_all(&dir).expect("a directory for the driver");
        let lock = File::create(dir.join("lock")).expect("a file for a lock");
        lock.lock().expect("a lock on a file");
        let version = dir.join(format!("{:016x}", hash_of_sources()));
        let (classes, jars) = (version.join("classes"), version.join("class-path"));
        let jars = match fs::read_to_string(&jars) {
            // Somebody may have emptied Maven's repository.
            Ok(list) if list.split(':').all(|jar| Path::new(jar).exists()) => list,
            _ => build(&classes, &jars),
        };
        format!(
            "{}:{}:{jars}",
            classes.display(),
            source("java/src/main/resources").display()
        )
    })
}

/// The arguments of a JVM that runs `class`, up to its own arguments: small, quick to start, and writing below `dir` only.
pub fn jvm_args(heap_mb: usize, dir: &Path, properties: &[&str], class: &str) -> Vec<String> {
    let mut args: Vec<String> = [
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        // Apache's store cannot do without these.
        "--add-opens=java.base/java.nio=ALL-UNNAMED",
        "--add-opens=java.base/sun.nio.ch=ALL-UNNAMED",
        "--add-opens=java.base/jdk.internal.misc=ALL-UNNAMED",
        "--add-exports=java.base/jdk.internal.ref=ALL-UNNAMED",
    ]
    .map(str::to_owned)
    .to_vec();
    args.push(format!("-Xmx{heap_mb}m"));
    args.extend(
        [
            "user.home",
            "rocketmq.client.logRoot",
            "rocketmq.client.localOffsetStoreDir",
            "rocketmq.home.dir",
        ]
        .map(|p| format!("-D{p}={}", dir.display())),
    );
    args.extend(properties.iter().map(|p| format!("-D{p}")));
    args.extend(["-cp".to_owned(), class_path().to_owned(), class.to_owned()]);
    args
}

fn build(classes: &Path, jars: &Path) -> String {
    fs::create_dir_all(classes).expect("a directory for classes");
    let mut maven = Command::new("mvn");
    maven
        .args([
            "-q",
            "-B",
            "-ntp",
            "org.apache.maven.plugins:maven-dependency-plugin:build-classpath",
            "-DincludeScope=runtime",
            "-f",
        ])
        .arg(source("java/pom.xml"))
        .arg(format!("-Dmdep.outputFile={}", jars.display()));
    run(maven);
    let list = fs::read_to_string(jars).expect("Maven writes the class path");
    let mut javac = Command::new("javac");
    javac
        .args([
            "-proc:none",
            "-Xlint:all,-processing",
            "-Werror",
            "-cp",
            list.trim(),
            "-d",
        ])
        .arg(classes)
        .args(driver_sources());
    run(javac);
    list.trim().to_owned()
}

fn driver_sources() -> Vec<PathBuf> {
    let dir = source("java/src/main/java/corelane/driver");
    let mut files: Vec<PathBuf> = fs::read_dir(dir)
        .expect("the driver's sources")
        .map(|e| e.expect("a directory entry").path())
        .collect();
    files.sort();
    files
}

fn hash_of_sources() -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in driver_sources().iter().chain([&source("java/pom.xml")]) {
        fs::read(file).expect("a source file").hash(&mut hasher);
    }
    hasher.finish()
}

fn run(mut command: Command) {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{name} (a JDK and Maven are needed): {e}"));
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{name} failed:\n{text}");
}
