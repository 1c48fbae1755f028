//! Sets `have_java` (a JDK and Maven) and `have_go`, so that tests with real clients count as ignored where these are
//! absent. With `CI=true` both are set in any case: there absence is a failure, which the tests then tell.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(have_java)");
    println!("cargo::rustc-check-cfg=cfg(have_go)");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=PATH");
    println!("cargo::rerun-if-env-changed=CI");
    let required = env::var("CI").is_ok_and(|ci| ci == "true");
    for (name, tools) in [
        ("have_java", &["java", "javac", "mvn"][..]),
        ("have_go", &["go"][..]),
    ] {
        let found: Vec<Option<PathBuf>> = tools.iter().map(|tool| find(tool)).collect();
        for (tool, path) in tools.iter().zip(&found) {
            match path {
                Some(path) => println!("cargo::rerun-if-changed={}", path.display()),
                // A path that does not exist makes Cargo look again the next time.
                None => println!("cargo::rerun-if-changed=absent/{tool}"),
            }
        }
        if required || found.iter().all(Option::is_some) {
            println!("cargo::rustc-cfg={name}");
        }
    }
}

fn find(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path)
        .map(|dir| dir.join(tool))
        .find(|file| file.is_file())
}
