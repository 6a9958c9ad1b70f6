// Package block is what stands behind a namespace: a number of bytes
// that can be read, written, flushed, zeroed and discarded.
//
// A Backend takes a caller-owned Request whose buffers are the guest's memory
// itself; nothing is copied on the way and nothing is allocated per request.
// Memory keeps its bytes in anonymous memory, File keeps them in a regular
// file or a block device and works asynchronously, NBD leaves them to a server,
// Null keeps none. A Filter in front of any of them delays requests, has them
// fail, counts them and so on; a Volatile forgets what was not flushed. Both obey
// while requests run. Open makes a backend out of a short text such as "mem:1G", and a Pool is
// storage that backends are cut out of as they are needed. The size of a Resizer can change.
//
// Nothing here knows of NVMe, queues or guest addresses.
package block
