// Package trace stands between a vfio-user client and its server, passes on what they
// send, and tells of it: as lines for people or programs, as a summary, as a recording
// that can be printed later or played against another server.
//
// [Proxy] passes bytes and descriptors and makes Events of them, before they leave. All
// else works on Events, whether they come from a Proxy or from a recording: an assembler
// makes messages of the bytes, [Printer] and [Summary] show them, [Recorder] writes the
// Events down, [Replay] plays the client's part.
package trace
