//! The canned documents: embedded, checked, and overridable by a folder.
//!
//! Everything is read and judged once, at the start. When it is needed, answering costs no file, no
//! lock and no parsing, so that it works when nothing else does.

use std::path::Path;

use bytes::Bytes;
use holdline_twilio::Document;

use super::template::HoldTemplate;

/// Canned documents, hold templates and audio, by name.
#[derive(Debug, Clone)]
pub struct CannedSet {
    documents: Vec<(String, Document)>,
    audio: Vec<(String, Audio)>,
    hold: HoldTemplate,
    hold_again: HoldTemplate,
}

/// An audio file Twilio can play.
#[derive(Debug, Clone)]
pub struct Audio {
    /// Its media type.
    pub content_type: &'static str,
    /// The file.
    pub bytes: Bytes,
}

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_bytes!(concat!("../../../static-twiml/", $name)).as_slice())),*]
    };
}

static EMBEDDED: [(&str, &[u8]); 10] = embedded![
    "apology.xml",
    "hangup.xml",
    "hold.xml",
    "hold-again.xml",
    "menu.xml",
    "message-failed.xml",
    "pin-prompt.xml",
    "to-next-call.xml",
    "wrap-up.xml",
    "hold-music.wav",
];

/// Audio types Twilio plays (twilio.com/docs/voice/twiml/play), by file ending.
const AUDIO_TYPES: [(&str, &str); 4] =
    [("mp3", "audio/mpeg"), ("wav", "audio/wav"), ("aiff", "audio/x-aiff"), ("gsm", "audio/gsm")];
const HOLD: &str = "hold";
const HOLD_AGAIN: &str = "hold-again";

// === impl CannedSet ===

impl CannedSet {
    /// The embedded set, overridden and extended by the files of `folder`. Every fault is reported.
    pub fn load(folder: Option<&Path>) -> Result<CannedSet, Vec<String>> {
        let mut faults = Vec::new();
        let mut files: Vec<(String, Bytes)> = EMBEDDED
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), Bytes::from_static(bytes)))
            .collect();
        if let Some(folder) = folder {
            match read_folder(folder) {
                Ok(overrides) => {
                    for (name, bytes) in overrides {
                        let stem = stem_of(&name).to_owned();
                        files.retain(|(known, _)| stem_of(known) != stem);
                        files.push((name, bytes));
                    }
                }
                Err(error) => faults.push(format!("{}: {error}", folder.display())),
            }
        }
        let mut documents = Vec::new();
        let mut audio = Vec::new();
        let mut hold = None;
        let mut hold_again = None;
        for (file, bytes) in files {
            let (name, ending) =
                (stem_of(&file).to_owned(), file.rsplit('.').next().unwrap_or_default());
            if ending != "xml" {
                match AUDIO_TYPES.iter().find(|(known, _)| *known == ending) {
                    Some((_, content_type)) => audio.push((name, Audio { content_type, bytes })),
                    None => faults.push(format!(
                        "{file}: must end in .xml or be audio (mp3, wav, aiff, gsm)"
                    )),
                }
            } else if name == HOLD || name == HOLD_AGAIN {
                let slot = if name == HOLD { &mut hold } else { &mut hold_again };
                match HoldTemplate::parse(&bytes) {
                    Ok(template) => *slot = Some(template),
                    Err(fault) => faults.push(format!("{file}: {fault}")),
                }
            } else {
                match Document::check(bytes) {
                    Ok((document, warnings)) if warnings.total() == 0 => {
                        documents.push((name, document))
                    }
                    Ok(_) => faults.push(format!(
                        "{file}: Twilio would warn about it; only plain TwiML will do"
                    )),
                    Err(refusal) => faults.push(format!("{file}: {refusal}")),
                }
            }
        }
        match (hold, hold_again) {
            (Some(hold), Some(hold_again)) if faults.is_empty() => {
                Ok(CannedSet { documents, audio, hold, hold_again })
            }
            _ => Err(faults),
        }
    }

    /// A document.
    pub fn document(&self, name: &str) -> Option<&Document> {
        self.documents.iter().find(|(known, _)| known == name).map(|(_, document)| document)
    }

    /// An audio file.
    pub fn audio(&self, name: &str) -> Option<&Audio> {
        self.audio.iter().find(|(known, _)| known == name).map(|(_, audio)| audio)
    }

    /// The template of a visit's first hold, or of a later one.
    pub fn hold(&self, first: bool) -> &HoldTemplate {
        if first { &self.hold } else { &self.hold_again }
    }

    /// All names a row can use.
    pub fn names(&self) -> Vec<&str> {
        let documents = self.documents.iter().map(|(name, _)| name.as_str());
        documents.chain(self.audio.iter().map(|(name, _)| name.as_str())).collect()
    }
}

fn stem_of(file: &str) -> &str {
    file.rsplit_once('.').map_or(file, |(stem, _)| stem)
}

fn read_folder(folder: &Path) -> std::io::Result<Vec<(String, Bytes)>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_file() && !name.starts_with('.') {
            files.push((name, Bytes::from(std::fs::read(entry.path())?)));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_embedded_file_passes_and_every_file_is_embedded() {
        let set = CannedSet::load(None).unwrap();
        assert_eq!(set.names().len() + 2, EMBEDDED.len());
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../static-twiml");
        let mut on_disk: Vec<_> =
            read_folder(&folder).unwrap().into_iter().map(|(name, _)| name).collect();
        let mut embedded: Vec<_> = EMBEDDED.iter().map(|(name, _)| (*name).to_owned()).collect();
        on_disk.sort();
        embedded.sort();
        assert_eq!(on_disk, embedded);
    }

    #[test]
    fn a_folder_overrides_and_extends() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("apology.xml"), "<Response><Say>Sorry.</Say></Response>")
            .unwrap();
        std::fs::write(folder.path().join("closed.xml"), "<Response><Hangup/></Response>").unwrap();
        let set = CannedSet::load(Some(folder.path())).unwrap();
        assert!(set.document("apology").unwrap().bytes().starts_with(b"<Response><Say>Sorry"));
        assert!(set.document("closed").is_some() && set.document("menu").is_some());
    }

    #[test]
    fn broken_overrides_are_all_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [
            ("apology.xml", "<Response><Say>Sorry.</Response>"),
            ("hold.xml", "<Response><Pause length=\"{{seconds}}\"/></Response>"),
            ("notes.txt", "x"),
            ("odd.xml", "<Response><Shout/></Response>"),
        ] {
            std::fs::write(folder.path().join(name), content).unwrap();
        }
        let faults = CannedSet::load(Some(folder.path())).unwrap_err();
        assert_eq!(
            faults,
            [
                "apology.xml: not well-formed at byte 21: expected the end tag of the open element",
                "hold.xml: must use {{seconds}}, {{method}} and {{return}} once each",
                "notes.txt: must end in .xml or be audio (mp3, wav, aiff, gsm)",
                "odd.xml: Twilio would warn about it; only plain TwiML will do",
            ]
        );
    }
}
