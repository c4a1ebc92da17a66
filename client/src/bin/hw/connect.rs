//! From flags, variables and profile to a connected client, and from its errors to exit codes.
//!
//! A flag wins over its variable (clap sees to that), and both over the profile.

use std::path::PathBuf;
use std::time::Duration;

use highwater_client::{Client, ClientConfig, Error, ErrorKind, Profile, Profiles};
use highwater_protocol::error::ErrorCode;

use crate::cli::GlobalArgs;
use crate::exit::{Exit, Failure};

/// What the flags and variables say about the connection.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The profile asked for.
    pub profile: Option<String>,
    /// Addresses that replace the profile's.
    pub bootstrap: Vec<String>,
    /// A CA that replaces the profile's.
    pub ca: Option<PathBuf>,
    /// A certificate that replaces the profile's.
    pub cert: Option<PathBuf>,
    /// A key that replaces the profile's.
    pub key: Option<PathBuf>,
    /// How long to wait for an answer.
    pub request_timeout: Duration,
}

impl Settings {
    /// What `args` say, variables included.
    pub fn from_args(args: GlobalArgs) -> Settings {
        Settings {
            profile: args.profile,
            bootstrap: args.bootstrap,
            ca: args.ca,
            cert: args.cert,
            key: args.key,
            request_timeout: args.request_timeout,
        }
    }

    /// The profile that results from all sources.
    pub fn effective(&self) -> Result<Profile, Failure> {
        if let Some(whole) = self.without_profile() {
            return Ok(whole);
        }
        let mut profile = Profiles::load()?.get(self.profile.as_deref())?.clone();
        if !self.bootstrap.is_empty() {
            profile.bootstrap = self.bootstrap.clone();
        }
        let replace = |file: &mut PathBuf, by: &Option<PathBuf>| {
            if let Some(by) = by {
                file.clone_from(by);
            }
        };
        replace(&mut profile.ca, &self.ca);
        replace(&mut profile.cert, &self.cert);
        replace(&mut profile.key, &self.key);
        Ok(profile)
    }

    /// A profile made of flags and variables alone, where they say everything.
    pub fn without_profile(&self) -> Option<Profile> {
        let (ca, cert, key) = (self.ca.clone()?, self.cert.clone()?, self.key.clone()?);
        if self.bootstrap.is_empty() {
            return None;
        }
        Some(Profile { bootstrap: self.bootstrap.clone(), ca, cert, key, compression: None })
    }

    /// The configuration of the client.
    pub fn client_config(&self) -> Result<ClientConfig, Failure> {
        let mut config = self.effective()?.config().client_id("hw");
        config.request_timeout = self.request_timeout;
        Ok(config)
    }

    /// A connected client.
    pub async fn connect(&self) -> Result<Client, Failure> {
        Ok(Client::connect(self.client_config()?).await?)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(exit_for(error.kind()), error.to_string());
        match way_out(error.kind()) {
            Some(hint) => failure.way_out(hint),
            None => failure,
        }
    }
}

/// The exit code for an error of the client.
pub fn exit_for(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::UnknownTopic => Exit::NotFound,
        ErrorKind::TimedOut => Exit::TimedOut,
        ErrorKind::Identity => Exit::Unauthorised,
        ErrorKind::Refused(code) => match code {
            ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownBroker => Exit::NotFound,
            ErrorCode::TopicExists
            | ErrorCode::TopicProtected
            | ErrorCode::Conflict
            | ErrorCode::WrongEnd => Exit::Conflict,
            ErrorCode::Unauthorized => Exit::Unauthorised,
            ErrorCode::RequestTimedOut => Exit::TimedOut,
            // What scripts cannot act on differently has no number of its own.
            _other => Exit::Failed,
        },
        // The kinds can grow; until they have a number here, they are plain failures.
        _other => Exit::Failed,
    }
}

fn way_out(kind: ErrorKind) -> Option<&'static str> {
    match kind {
        ErrorKind::Unreachable => Some(
            "`hw profile show --sources` shows which addresses were tried; `highwater dev` starts \
             a cluster of your own",
        ),
        ErrorKind::Identity => {
            Some("`hw profile show` shows the certificates; they must be of the cluster's own CA")
        }
        _other => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_can_tell_missing_from_existing_from_forbidden() {
        let check = |kind, exit| assert_eq!(exit_for(kind), exit, "{kind:?}");
        check(ErrorKind::UnknownTopic, Exit::NotFound);
        check(ErrorKind::Refused(ErrorCode::UnknownBroker), Exit::NotFound);
        check(ErrorKind::Refused(ErrorCode::Conflict), Exit::Conflict);
        check(ErrorKind::Refused(ErrorCode::TopicExists), Exit::Conflict);
        check(ErrorKind::Refused(ErrorCode::TopicProtected), Exit::Conflict);
        check(ErrorKind::Refused(ErrorCode::Unauthorized), Exit::Unauthorised);
        check(ErrorKind::TimedOut, Exit::TimedOut);
        check(ErrorKind::Unreachable, Exit::Failed);
        check(ErrorKind::Refused(ErrorCode::DiskFull), Exit::Failed);
    }

    #[test]
    fn flags_alone_are_enough_when_they_say_everything() {
        let mut settings = Settings {
            profile: None,
            bootstrap: vec!["h:1".to_owned()],
            ca: Some("ca".into()),
            cert: Some("cert".into()),
            key: Some("key".into()),
            request_timeout: Duration::from_secs(1),
        };
        assert!(settings.without_profile().is_some());
        settings.key = None;
        assert!(settings.without_profile().is_none());
    }
}
