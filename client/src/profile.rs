//! Profiles: named clusters in one TOML file, one of them current.
//!
//! ```toml
//! current = "dev"
//!
//! [profiles.dev]
//! bootstrap = ["127.0.0.1:9092"]
//! ca = "/home/me/hw/ca.pem"
//! cert = "/home/me/hw/client.pem"
//! key = "/home/me/hw/client.key"
//! ```
//!
//! The file is `$HIGHWATER_PROFILE`, else `$XDG_CONFIG_HOME/highwater/profile.toml`, else
//! `~/.config/highwater/profile.toml`. Keys stay in their own files; a profile only points at them.
//! Relative paths are taken from the directory of the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_protocol::batch::Compression;
use serde::{Deserialize, Serialize};

use crate::client::{ClientConfig, Pem, TlsConfig};
use crate::error::{Error, ErrorKind};

/// How to reach one cluster, and as whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Some brokers of the cluster, `host:port`; the rest is learned from them.
    pub bootstrap: Vec<String>,
    /// The cluster CA's certificate, PEM.
    pub ca: PathBuf,
    /// The client's certificate, PEM.
    pub cert: PathBuf,
    /// The client's private key, PEM.
    pub key: PathBuf,
    /// What producers pack batches with that do not choose themselves.
    #[serde(default, with = "codec", skip_serializing_if = "Option::is_none")]
    pub compression: Option<Compression>,
}

/// All profiles of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profiles {
    /// The profile used when none is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<String>,
    /// Profiles by name.
    #[serde(default)]
    pub profiles: BTreeMap<String, Profile>,
}

impl Profile {
    /// The profile called `name`, or the current one, from the default file.
    pub fn load(name: Option<&str>) -> Result<Profile, Error> {
        Profiles::load()?.get(name).cloned()
    }

    /// A client configuration with this profile's addresses and TLS files.
    pub fn config(&self) -> ClientConfig {
        let tls = TlsConfig {
            ca: Pem::File(self.ca.clone()),
            cert: Pem::File(self.cert.clone()),
            key: Pem::File(self.key.clone()),
        };
        let config = ClientConfig::new(self.bootstrap.iter().cloned(), tls);
        ClientConfig { compression: self.compression, ..config }
    }
}

impl Profiles {
    /// Where profiles are kept; an error where neither a variable nor a home directory says so.
    pub fn path() -> Result<PathBuf, Error> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        if let Some(path) = variable("HIGHWATER_PROFILE") {
            return Ok(PathBuf::from(path));
        }
        let config = variable("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".config")));
        config.map(|dir| dir.join("highwater/profile.toml")).ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "no place for profiles: set HIGHWATER_PROFILE to a file, or HOME",
            )
        })
    }

    /// The default file's profiles; none if there is no such file.
    pub fn load() -> Result<Profiles, Error> {
        let path = Profiles::path()?;
        if !path.exists() {
            return Ok(Profiles::default());
        }
        Profiles::load_from(&path)
    }

    /// The profiles in `path`, which must exist.
    pub fn load_from(path: &Path) -> Result<Profiles, Error> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            config_error(format!("cannot read profiles from {}: {error}", path.display()))
        })?;
        let mut profiles: Profiles = toml::from_str(&text).map_err(|error| {
            config_error(format!("{} is not a valid profile file: {error}", path.display()))
        })?;
        let dir = path.parent().unwrap_or(Path::new("."));
        for profile in profiles.profiles.values_mut() {
            for file in [&mut profile.ca, &mut profile.cert, &mut profile.key] {
                *file = dir.join(&*file);
            }
        }
        Ok(profiles)
    }

    /// Writes the default file, whole or not at all, and makes its directory.
    pub fn save(&self) -> Result<PathBuf, Error> {
        let path = Profiles::path()?;
        self.save_to(&path)?;
        Ok(path)
    }

    /// Writes `path`, whole or not at all, and makes its directory.
    pub fn save_to(&self, path: &Path) -> Result<(), Error> {
        let text = toml::to_string_pretty(self)
            .map_err(|error| config_error(format!("cannot write profiles as TOML: {error}")))?;
        let failed = |error: std::io::Error| {
            config_error(format!("cannot write profiles to {}: {error}", path.display()))
        };
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        // Renamed into place, so that no reader ever sees half a file; named by process, so that
        // two writers don't share the half-written one.
        let half = path.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&half, text).map_err(failed)?;
        std::fs::rename(&half, path).map_err(failed)
    }

    /// The profile called `name`, or the current one, or the only one.
    pub fn get(&self, name: Option<&str>) -> Result<&Profile, Error> {
        let only = || self.profiles.keys().next().filter(|_| self.profiles.len() == 1);
        let Some(name) = name.or(self.current.as_deref()).or(only().map(String::as_str)) else {
            return Err(config_error(format!(
                "no current profile; {}",
                self.known("choose one with `hw profile use NAME`")
            )));
        };
        self.profiles.get(name).ok_or_else(|| {
            config_error(format!("no profile called {name:?}; {}", self.known("name one of them")))
        })
    }

    fn known(&self, way_out: &str) -> String {
        if self.profiles.is_empty() {
            return "none is written yet: start `highwater dev`, or run `hw profile add`".into();
        }
        let names: Vec<&str> = self.profiles.keys().map(String::as_str).collect();
        format!("known are {}: {way_out}", names.join(", "))
    }
}

/// A codec by the name that Kafka has for it.
mod codec {
    use highwater_protocol::batch::Compression;
    use highwater_protocol::settings::profile::CODECS;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    pub(super) fn serialize<S: Serializer>(
        codec: &Option<Compression>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        codec.map(Compression::name).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Compression>, D::Error> {
        let name = String::deserialize(deserializer)?;
        let unknown = || de::Error::unknown_variant(&name, CODECS);
        Compression::named(&name).ok_or_else(unknown).map(Some)
    }
}

fn config_error(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(port: u16) -> Profile {
        Profile {
            bootstrap: vec![format!("127.0.0.1:{port}")],
            ca: "/pki/ca.pem".into(),
            cert: "/pki/client.pem".into(),
            key: "/pki/client.key".into(),
            compression: (port == 2).then_some(Compression::Zstd),
        }
    }

    #[test]
    fn what_is_saved_is_loaded_again() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("deep/profile.toml");
        let mut profiles = Profiles { current: Some("dev".into()), ..Profiles::default() };
        profiles.profiles.insert("dev".into(), profile(1));
        profiles.profiles.insert("prod".into(), profile(2));
        profiles.save_to(&path).expect("saved");
        let loaded = Profiles::load_from(&path).expect("loaded");
        assert_eq!(loaded, profiles);
        assert_eq!(loaded.get(None).expect("current"), &profile(1));
        assert_eq!(loaded.get(Some("prod")).expect("named"), &profile(2));
    }

    #[test]
    fn relative_files_are_found_beside_the_profile() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("profile.toml");
        let text = "[profiles.a]\nbootstrap=['h:1']\nca='ca.pem'\ncert='c.pem'\nkey='/abs/k.pem'\n";
        std::fs::write(&path, text).expect("written");
        let profiles = Profiles::load_from(&path).expect("loaded");
        let only = profiles.get(None).expect("the only one");
        assert_eq!(only.ca, dir.path().join("ca.pem"));
        assert_eq!(only.key, PathBuf::from("/abs/k.pem"));
    }

    #[test]
    fn a_codec_that_nobody_has_heard_of_is_refused_with_those_there_are() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("profile.toml");
        let text = "[profiles.a]\nbootstrap=[]\nca='a'\ncert='b'\nkey='c'\ncompression='rar'\n";
        std::fs::write(&path, text).expect("written");
        let error = Profiles::load_from(&path).expect_err("no such codec").to_string();
        assert!(error.contains("`rar`") && error.contains("`zstd`"), "{error}");
    }

    #[test]
    fn a_missing_profile_names_the_known_ones() {
        let mut profiles = Profiles::default();
        let error = profiles.get(None).expect_err("there are none");
        assert!(error.to_string().contains("highwater dev"), "{error}");
        profiles.profiles.insert("dev".into(), profile(1));
        let error = profiles.get(Some("prod")).expect_err("not there");
        assert!(error.to_string().contains("known are dev"), "{error}");
    }
}
