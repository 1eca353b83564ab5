use super::*;
use std::fs;

const SOURCE: &str =
    "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: {path: a}\n";
const EDITED: &str =
    "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: a}\nspec: {path: b}\n";
const OTHER: &str = "apiVersion: hookstream.io/v1alpha1\nkind: Source\nmetadata: {name: other}\nspec: {path: other}\n";
const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {k: one}\n";

struct Fixture {
    place: tempfile::TempDir,
    folder: Folder,
    now: Declared,
}

impl Fixture {
    fn new() -> Fixture {
        let place = tempfile::tempdir().expect("a folder");
        let folder = Folder::new([place.path().to_owned()]);
        Fixture {
            place,
            folder,
            now: Declared::default(),
        }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.place.path().join(name), text).expect("written");
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.place.path().join(name)).expect("removed");
    }

    /// Reads again and answers the changes in words.
    fn changes(&mut self) -> Vec<String> {
        let next = self.folder.read(Timestamp::UNIX_EPOCH).expect("readable");
        let changes = next.changes_since(&self.now);
        self.now = next;
        changes
            .into_iter()
            .map(|change| match change {
                Change::Apply(resource) => {
                    let metadata = resource.metadata();
                    format!(
                        "apply {} {}",
                        metadata.name.as_deref().unwrap_or_default(),
                        metadata.generation.unwrap_or_default()
                    )
                }
                Change::Remove(_) => "remove".to_owned(),
                Change::Secret(name, data) => format!("secret {} {}", name.1, data.is_some()),
                Change::Namespace(name, labels) => format!("namespace {name} {}", labels.is_some()),
            })
            .collect()
    }

    fn problems(&self) -> Vec<String> {
        let prefix = format!("{}/", self.place.path().display());
        self.now
            .problems
            .iter()
            .map(|problem| problem.to_string().replace(&prefix, ""))
            .collect()
    }
}

#[test]
fn what_is_new_edited_and_deleted_becomes_a_change_and_nothing_else_does() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", SOURCE);
    fixture.write("b.yml", SECRET);
    assert_eq!(
        fixture.changes(),
        ["namespace default true", "secret s true", "apply a 1"]
    );
    assert!(fixture.changes().is_empty());
    fixture.write("a.yaml", &format!("# only a comment\n{SOURCE}"));
    assert!(
        fixture.changes().is_empty(),
        "the same content in other words"
    );
    fixture.write("a.yaml", EDITED);
    assert_eq!(
        fixture.changes(),
        ["apply a 2"],
        "an edit counts the generation up"
    );
    fixture.write("b.yml", &SECRET.replace("one", "two"));
    assert_eq!(fixture.changes(), ["secret s true"]);
    fixture.remove("a.yaml");
    assert_eq!(fixture.changes(), ["remove"]);
    fixture.remove("b.yml");
    assert_eq!(
        fixture.changes(),
        ["namespace default false", "secret s false"]
    );
}

#[test]
fn a_mistake_takes_nothing_away_until_it_is_mended() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &format!("{SOURCE}---\n{OTHER}"));
    assert_eq!(fixture.changes().len(), 3);
    for broken in [
        format!("{}---\n{OTHER}", SOURCE.replace("path", "pth")),
        format!("{SOURCE}---\n[broken"),
        "\u{0}".to_owned(),
    ] {
        fixture.write("a.yaml", &broken);
        assert!(fixture.changes().is_empty(), "{broken:?}");
        assert_eq!(fixture.problems().len(), 1, "{:?}", fixture.problems());
    }
    fixture.write("a.yaml", &format!("{EDITED}---\n{OTHER}"));
    assert_eq!(fixture.changes(), ["apply a 2"]);
    assert!(fixture.problems().is_empty());
}

#[test]
fn a_broken_document_does_not_hold_up_its_neighbour() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", &format!("{SOURCE}---\n{OTHER}"));
    fixture.changes();
    fixture.write(
        "a.yaml",
        &format!("{EDITED}---\n{}", OTHER.replace("path", "pth")),
    );
    assert_eq!(fixture.changes(), ["apply a 2"]);
    fixture.write("a.yaml", SOURCE);
    assert_eq!(
        fixture.changes(),
        ["apply a 3", "remove"],
        "deleted is not broken"
    );
}

#[test]
fn an_object_declared_twice_is_reported_and_the_first_one_counts() {
    let mut fixture = Fixture::new();
    fixture.write("a.yaml", SOURCE);
    fixture.write("b.yaml", &format!("# a comment\n{EDITED}"));
    assert_eq!(fixture.changes().len(), 2);
    let place = fixture.place.path().display();
    assert_eq!(fixture.problems(), [format!("b.yaml:4: Source default/a is already declared at {place}/a.yaml:1: rename or delete one of the two").replace(&format!("{place}/"), "")]);
}

#[test]
fn folders_below_are_read_and_hidden_files_and_kustomizations_are_not() {
    let mut fixture = Fixture::new();
    fs::create_dir_all(fixture.place.path().join("x/y")).expect("made");
    fixture.write("x/y/a.yaml", SOURCE);
    fixture.write(".a.yaml", OTHER);
    fixture.write("kustomization.yaml", "resources: [x/y/a.yaml]");
    fixture.write("notes.txt", "not a manifest");
    assert_eq!(fixture.changes(), ["namespace default true", "apply a 1"]);
    assert!(fixture.problems().is_empty());
}

#[test]
fn a_folder_that_does_not_exist_is_said_by_its_name() {
    let error = Folder::new(["/nowhere/at/all".into()])
        .read(Timestamp::UNIX_EPOCH)
        .expect_err("not there");
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}

#[test]
fn a_file_that_is_not_utf8_is_reported_at_the_line_of_the_byte() {
    let mut fixture = Fixture::new();
    fs::write(fixture.place.path().join("a.yaml"), b"a: 1\nb: \xff\n").expect("written");
    fixture.changes();
    assert_eq!(
        fixture.problems(),
        ["a.yaml:2: not UTF-8: save the file in this encoding"]
    );
}

#[test]
fn what_two_roots_and_links_lead_to_is_read_once() {
    let place = tempfile::tempdir().expect("a folder");
    fs::write(place.path().join("a.yaml"), SOURCE).expect("written");
    std::os::unix::fs::symlink(place.path(), place.path().join("around")).expect("linked");
    std::os::unix::fs::symlink(place.path().join("a.yaml"), place.path().join("b.yaml"))
        .expect("linked");
    let roots = [place.path().to_owned(), place.path().join("a.yaml")];
    let declared = Folder::new(roots)
        .read(Timestamp::UNIX_EPOCH)
        .expect("readable");
    assert_eq!(declared.resources.len(), 1);
    assert!(declared.problems.is_empty(), "{:?}", declared.problems);
}
