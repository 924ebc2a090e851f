//! Compiles the wire contracts under `proto/` with protox, so that building needs no protoc; keeps their
//! descriptors, by which the client commands print messages; and collects the doc comments of the
//! configuration structs, which `corten config default` prints.

use std::error::Error;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// The sections of the configuration file: name, where the struct is, and the struct.
const SECTIONS: [(&str, &str, &str); 8] = [
    ("", "src", "Config"),
    ("cni", "../network/src", "Config"),
    ("cgroup", "src", "Cgroup"),
    ("image", "../image/src", "Config"),
    ("metrics", "src", "Metrics"),
    ("pod", "../pod/src", "Config"),
    ("streaming", "src", "Streaming"),
    ("runtimes.corten", "src", "Native"),
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.open_files(["api.proto", "corten.proto"])?;
    let descriptors = compiler.file_descriptor_set();
    let services = descriptors.file.iter().flat_map(|file| &file.service);
    let methods: Vec<&str> =
        services.flat_map(|service| &service.method).map(|method| method.name()).collect();
    fs::write(out.join("methods.rs"), format!("{methods:?}\n"))?;
    fs::write(out.join("descriptors.bin"), compiler.encode_file_descriptor_set())?;
    tonic_prost_build::configure()
        // Maps keep an order, so that answers and records are the same each time.
        .btree_map(".")
        // It holds passwords; `wire.rs` writes the Debug that does not show them.
        .skip_debug([".runtime.v1.AuthConfig"])
        .compile_fds(compiler.include_source_info(true).file_descriptor_set())?;
    fs::write(out.join("manual.rs"), manual()?)?;
    Ok(())
}

/// The contents of `manual.rs`: an array of sections with their texts and keys, in the order of the sources.
fn manual() -> Result<String, Box<dyn Error>> {
    let mut manual = String::from("[\n");
    for (section, directory, name) in SECTIONS {
        let source = find_struct(Path::new(directory), name)?
            .ok_or_else(|| format!("no `struct {name}` with named fields under {directory}"))?;
        println!("cargo:rerun-if-changed={}", source.path.display());
        writeln!(manual, "    Section {{ name: {section:?}, text: {:?}, keys: &[", source.text)?;
        for (key, text) in &source.fields {
            writeln!(manual, "        ({key:?}, {text:?}),")?;
        }
        manual.push_str("    ] },\n");
    }
    manual.push_str("]\n");
    Ok(manual)
}

struct Struct {
    path: PathBuf,
    text: String,
    fields: Vec<(String, String)>,
}

fn find_struct(directory: &Path, name: &str) -> Result<Option<Struct>, Box<dyn Error>> {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    entries.sort();
    for path in entries {
        let found = if path.is_dir() {
            find_struct(&path, name)?
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            read_struct(&path, name)?
        } else {
            None
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Reads the struct's doc comments, field by field; rustfmt has made the lines predictable.
fn read_struct(path: &Path, name: &str) -> Result<Option<Struct>, Box<dyn Error>> {
    let source = fs::read_to_string(path)?;
    let mut lines = source.lines();
    let mut text = String::new();
    let heads = [format!("pub struct {name} {{"), format!("pub(crate) struct {name} {{")];
    loop {
        let Some(line) = lines.next() else { return Ok(None) };
        if heads.iter().any(|head| head == line) {
            break;
        }
        match line.strip_prefix("///") {
            Some(words) => join(&mut text, words),
            None if line.starts_with("#[") => {}
            None => text.clear(),
        }
    }
    let mut fields = Vec::new();
    let mut about = String::new();
    let mut skipped = false;
    for line in lines.map(str::trim).take_while(|line| *line != "}") {
        if let Some(words) = line.strip_prefix("///") {
            join(&mut about, words);
        } else if line == "#[serde(skip)]" {
            skipped = true;
        } else if let Some((head, _)) = line.split_once(": ") {
            let key = head.rsplit(' ').next().unwrap_or(head);
            let about = std::mem::take(&mut about);
            if !std::mem::take(&mut skipped) {
                fields.push((key.trim_start_matches("r#").to_owned(), about));
            }
        }
    }
    Ok(Some(Struct { path: path.to_owned(), text, fields }))
}

fn join(text: &mut String, words: &str) {
    if !text.is_empty() {
        text.push(' ');
    }
    text.push_str(words.trim());
}
