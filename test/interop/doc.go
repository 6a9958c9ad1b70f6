// Package interop runs this module's client against libvfio-user's sample servers, and
// libvfio-user's sample client against this module's server. It also plays SPDK's NVMe
// initiator, message for message, which needs nothing that is not here.
//
// libvfio-user is no part of this module. The tests are skipped unless the environment
// variable VFIOUSER_SAMPLES names the folder in which its samples were built
// (BUILD/samples). docs/interop.md says what was run, with versions, and what came of it.
package interop
