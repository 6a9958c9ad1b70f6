// Package qmp speaks QMP, QEMU's machine protocol: JSON objects both ways on a stream
// socket. A command gets a result or an error; events come in between at any time.
package qmp
