//! The verbs, nouns and attributes Twilio knows for Voice, for warnings only.
//!
//! Source: twilio-python `twilio/twiml/voice_response.py` and the TwiML pages. Twilio answers what is
//! not listed here with warning 12200 and carries on, so a gap in this table costs a false warning
//! and never a call.

/// An element: what may stand directly inside it and which attributes it takes.
pub(crate) struct Element {
    pub(crate) name: &'static str,
    pub(crate) children: &'static str,
    pub(crate) attributes: &'static str,
}

/// The element called `name`.
pub(crate) fn element(name: &str) -> Option<&'static Element> {
    ELEMENTS.iter().find(|element| element.name == name)
}

/// Whether a space-separated list of the table holds `name`.
pub(crate) fn lists(list: &str, name: &str) -> bool {
    list.split_ascii_whitespace().any(|known| known == name)
}

const SSML: &str = "break emphasis lang p phoneme prosody s say-as sub w";

macro_rules! elements {
    ($($name:literal { $children:expr; $attributes:literal })*) => {
        const ELEMENTS: &[Element] =
            &[$(Element { name: $name, children: $children, attributes: $attributes }),*];
    };
}

elements! {
    "Response" { "Connect Dial Echo Enqueue Gather Hangup Leave Pause Play Queue Record Redirect Reject Say Sms Pay Prompt Start Stop Refer"; "version" }
    "Say" { SSML; "voice language loop" }
    "Play" { ""; "loop digits" }
    "Pause" { ""; "length" }
    "Gather" { "Say Play Pause"; "input action method timeout speechTimeout numDigits finishOnKey partialResultCallback partialResultCallbackMethod language hints bargeIn profanityFilter speechModel enhanced actionOnEmptyResult maxSpeechTime debug" }
    "Record" { ""; "action method timeout finishOnKey maxLength playBeep trim recordingStatusCallback recordingStatusCallbackMethod recordingStatusCallbackEvent transcribe transcribeCallback recordingConfigurationId" }
    "Dial" { "Number Client Sip Conference Queue Application WhatsApp Sim"; "action method timeout timeLimit hangupOnStar callerId record recordingStatusCallback recordingStatusCallbackMethod recordingStatusCallbackEvent recordingTrack trim answerOnBridge ringTone sequential referUrl referMethod recordingConfigurationId events passports callReason ifMachine" }
    "Number" { ""; "url method sendDigits statusCallback statusCallbackMethod statusCallbackEvent byoc machineDetection machineDetectionTimeout machineDetectionSpeechThreshold machineDetectionSpeechEndThreshold machineDetectionSilenceTimeout amdStatusCallback amdStatusCallbackMethod" }
    "Client" { "Identity Parameter"; "url method statusCallback statusCallbackMethod statusCallbackEvent" }
    "Sip" { "Uri Headers"; "url method username password statusCallback statusCallbackMethod statusCallbackEvent machineDetection machineDetectionTimeout machineDetectionSpeechThreshold machineDetectionSpeechEndThreshold machineDetectionSilenceTimeout amdStatusCallback amdStatusCallbackMethod" }
    "Conference" { ""; "muted beep startConferenceOnEnter endConferenceOnExit participantLabel waitUrl waitMethod maxParticipants record region trim coach statusCallback statusCallbackMethod statusCallbackEvent recordingStatusCallback recordingStatusCallbackMethod recordingStatusCallbackEvent recordingConfigurationId eventCallbackUrl jitterBufferSize" }
    "Queue" { ""; "url method reservationSid postWorkActivitySid" }
    "Application" { "ApplicationSid Parameter"; "applicationSid customerId copyParentTo url method statusCallback statusCallbackMethod statusCallbackEvent" }
    "WhatsApp" { ""; "url method statusCallback statusCallbackMethod statusCallbackEvent" }
    "Sim" { ""; "url method statusCallback statusCallbackMethod statusCallbackEvent" }
    "Enqueue" { "Task"; "action method waitUrl waitUrlMethod workflowSid maxQueueSize" }
    "Task" { ""; "priority timeout" }
    "Leave" { ""; "" }
    "Hangup" { "Parameter"; "" }
    "Echo" { ""; "" }
    "Redirect" { ""; "method" }
    "Reject" { "Parameter"; "reason" }
    "Refer" { "Sip"; "action method" }
    "Sms" { ""; "to from action method statusCallback" }
    "Pay" { "Prompt Parameter"; "input action method statusCallback statusCallbackMethod timeout maxAttempts securityCode postalCode minPostalCodeLength paymentConnector paymentMethod bankAccountType tokenType chargeAmount currency description validCardTypes language" }
    "Prompt" { "Say Play Pause"; "for errorType cardType attempt requireMatchingInputs" }
    "Start" { "Stream Siprec Transcription Recording"; "action method" }
    "Stop" { "Stream Siprec Transcription"; "" }
    "Connect" { "Stream Room VirtualAgent Conversation ConversationRelay AiSession ConversationRelaySession Autopilot"; "action method" }
    "Stream" { "Parameter"; "name track url connectorName audioFormat sampleRate statusCallback statusCallbackMethod" }
    "Siprec" { "Parameter"; "name track connectorName statusCallback statusCallbackMethod" }
    "Parameter" { ""; "name value" }
    "Identity" { ""; "" }
    "ApplicationSid" { ""; "" }
    "Uri" { ""; "priority weight username password" }
}

/// Elements whose inside Twilio defines outside Voice or changes often; nothing in them is judged.
pub(crate) fn is_opaque(name: &str) -> bool {
    lists(SSML, name)
        || lists(
            "Headers Transcription Recording Room VirtualAgent Conversation ConversationRelay AiSession ConversationRelaySession Autopilot",
            name,
        )
}
