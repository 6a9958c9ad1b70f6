// Package clienttest is a vfio-user server for the tests of programs that use package client: it does what a script tells it to,
// right or wrong, and fails the test if the client does not do what the script expects.
//
// It knows the bytes of the protocol and nothing of devices. A real server is in package engine.
package clienttest
