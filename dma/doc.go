// Package dma holds the guest memory of one session: the regions that a client
// announced with VFIO_USER_DMA_MAP, the files mapped behind them, and the
// translation of I/O virtual addresses to local memory.
//
// A Table is changed by one goroutine (the reactor) and read by any number of
// workers, each through a Reader of its own, without locks and without
// allocation. What is unmapped is released only after every reader has left the
// section in which it could have seen it and every Pin is gone.
//
// The package knows nothing of messages: regions without a descriptor are kept in
// the table, and ErrMessage tells the caller to use DMA_READ or DMA_WRITE.
// Helpers for memory that a guest changes at the same time are in access_unsafe.go.
package dma
