// Package nvmemodel checks an NVM subsystem against a simple model of one. A program, which is
// read from a choice.Source, is a sequence of operations of one or two hosts: commands that are
// valid or not, one at a time or several under way, namespaces that come, go and change,
// features, reservations, and faults in between. The model knows what each block may hold and
// what each command may end with; whatever the subsystem says or returns is held against it.
//
// The subsystem is behind the interface Drive, so that the same programs run in the process
// of the controller, for a fuzzer, and over a socket with the driver of this project.
package nvmemodel
