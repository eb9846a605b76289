//! What the image is built from, and `docker-compose.yml`, by its own tool: where that is installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tool's two names.
const TOOLS: [(&str, &[&str]); 2] = [("docker", &["compose"]), ("docker-compose", &[])];

#[test]
fn the_compose_file_is_one() {
    let there = |(program, first): &(&str, &[&str])| {
        let version = Command::new(program).args(*first).arg("version").output();
        version.is_ok_and(|version| version.status.success())
    };
    let Some((program, first)) = TOOLS.into_iter().find(there) else {
        println!("not tested: there is neither docker compose nor docker-compose");
        return;
    };
    let mut command = Command::new(program);
    command.args(first).args(["config", "--quiet"]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let checked = command.output().expect("it runs");
    let (out, err) = (checked.stdout, checked.stderr);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&[out, err].concat()));
}

/// The image is built from what `.dockerignore` lets through, and no engine is asked for in a test.
#[test]
fn the_image_has_all_that_is_compiled_in() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let ignored = fs::read_to_string(root.join(".dockerignore")).expect("it is there");
    // What has no star is a file or a folder.
    let sent: Vec<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    // Cargo wants to see all targets of the manifest, whichever it builds.
    assert!(sent.contains(&"benches/*.rs"), "Cargo.toml names files there");
    let mut sources = Vec::new();
    collect(&root.join("src"), &mut sources);
    let mut included = 0;
    for source in sources {
        let text = fs::read_to_string(&source).expect("it is text");
        let calls = ["include_str!(\"", "include_bytes!(\""];
        let calls = calls.iter().flat_map(|call| text.split(call).skip(1));
        // Another kind of call (`concat!`) stays below `src`.
        for call in calls {
            let Some((path, _)) = call.split_once('"').filter(|(path, _)| path.contains("../"))
            else {
                continue;
            };
            let path = source.parent().expect("a folder").join(path);
            let path = fs::canonicalize(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
            let path = path.strip_prefix(fs::canonicalize(root).expect("it is there"));
            let path = path.expect("it is in the repository");
            assert!(
                sent.iter().any(|sent| path.starts_with(sent)),
                "{} is compiled in, and .dockerignore keeps it out",
                path.display()
            );
            included += 1;
        }
    }
    assert!(included > 22, "the queries of TPC-H and the topics of help at least");
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("it is there") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}
