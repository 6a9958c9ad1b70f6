// Package guest boots a real Linux guest in a real QEMU, with devices that vfio-user
// servers on this machine emulate, and runs scripts in it. The tests of this package
// serve such devices with the vfu command and hold them to what a guest expects. Those of
// network cards (net_*_test.go) take root: the other end of a card is in a network
// namespace.
//
// [Open] makes the machine's files once (unmodified Debian packages, see setup.sh) and
// keeps them in the user's cache folder; [Lab.Boot] starts a guest in some four seconds
// (TCG, no KVM, no root); [Guest.Run] runs a shell script in it. The folder shell holds a
// command that boots the same guest by hand, the folder suites one that runs test suites of other
// projects in it.
//
// What does not live here: anything of the protocol. QEMU is the client.
package guest
