//! The state file: what fired, and what each receiver is owed, survives a restart.
//!
//! It is replaced as a whole (written next to it, synced, renamed), so whoever is killed leaves the old one or the new one.
//! One that cannot be read is put aside and said, and alerts begin anew: that tells on-call twice at worst, and never not at
//! all.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{AlertsError, queue::Queue, rules::Rules};

/// Version of the file.
const SCHEMA: &str = "firstfin.alerts/1";
const NAME: &str = "alerts.json";

/// What is saved.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) rules: Rules,
    pub(super) receivers: BTreeMap<String, Queue>,
}

/// The same, borrowed, with the version in front.
#[derive(Serialize)]
struct Writing<'a> {
    schema: &'static str,
    rules: &'a Rules,
    receivers: BTreeMap<&'a str, &'a Queue>,
}

#[derive(Deserialize)]
struct Version {
    schema: String,
}

/// The bytes of the file.
pub(super) fn bytes<'a>(rules: &Rules, receivers: impl Iterator<Item = (&'a str, &'a Queue)>) -> io::Result<Vec<u8>> {
    let writing = Writing { schema: SCHEMA, rules, receivers: receivers.collect() };
    serde_json::to_vec(&writing).map_err(io::Error::from)
}

/// Where the state file is.
#[derive(Clone, Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

impl Store {
    /// Makes the folder if need be, and reads what is there.
    ///
    /// # Errors
    /// When the folder cannot be made, or the file is there and cannot be read at all.
    pub(super) fn open(folder: &Path) -> Result<(Self, Saved), AlertsError> {
        let this = Self { folder: folder.to_path_buf() };
        let failed = |path: &Path| {
            let path = path.to_path_buf();
            move |error| AlertsError::State { path, error }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed(folder))?;
        let path = this.path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((this, Saved::default())),
            Err(error) => return Err(failed(&path)(error)),
        };
        match read(&bytes) {
            Ok(saved) => Ok((this, saved)),
            Err(reason) => {
                let aside = folder.join(format!("{NAME}.unreadable"));
                fs::rename(&path, &aside).map_err(failed(&path))?;
                log::error!(
                    "alerts: {} cannot be read ({reason}); it is now {}, and what was told before is not known",
                    path.display(),
                    aside.display()
                );
                Ok((this, Saved::default()))
            }
        }
    }

    /// Replaces the file.
    ///
    /// # Errors
    /// When it cannot be written: the old one is left as it is.
    pub(super) fn write(&self, bytes: &[u8]) -> io::Result<()> {
        let new = self.folder.join(format!("{NAME}.new"));
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, self.path())?;
        File::open(&self.folder)?.sync_all()
    }

    /// The file.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.join(NAME)
    }
}

fn read(bytes: &[u8]) -> Result<Saved, String> {
    let version: Version = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    if version.schema != SCHEMA {
        return Err(format!("it is of version {:?}, and this firstfin reads {SCHEMA}", version.schema));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("firstfin-alerts-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    #[test]
    fn it_is_for_its_owner_alone_and_comes_back() {
        let folder = folder("back");
        let (store, saved) = Store::open(&folder).unwrap();
        assert_eq!(saved, Saved::default());
        let queue = Queue::default();
        store.write(&bytes(&Rules::default(), [("journal", &queue)].into_iter()).unwrap()).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&store.path())), (0o700, 0o600));
        let (_, saved) = Store::open(&folder).unwrap();
        assert_eq!(saved.receivers.keys().collect::<Vec<_>>(), ["journal"]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing half-written is left");
    }

    #[test]
    fn what_cannot_be_read_is_put_aside() {
        for (name, content) in
            [("torn", &b"{\"schema\":\"firstfin.al"[..]), ("newer", b"{\"schema\":\"firstfin.alerts/9\"}")]
        {
            let folder = folder(name);
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(NAME), content).unwrap();
            let (store, saved) = Store::open(&folder).unwrap();
            assert_eq!(saved, Saved::default());
            assert!(!store.path().exists());
            assert_eq!(fs::read(folder.join("alerts.json.unreadable")).unwrap(), content);
        }
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_named() {
        let error = Store::open(Path::new("/dev/null/alerts")).unwrap_err().to_string();
        assert!(error.contains("/dev/null/alerts"), "{error}");
    }
}
