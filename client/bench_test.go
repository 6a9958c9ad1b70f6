package client

import (
	"context"
	"testing"

	"golang.org/x/sys/unix"
)

func benchDevice(b *testing.B, opts ...Option) *Device {
	b.Helper()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s := serverOn(b, pair[1])
		s.Handshake()
		echoServer(s)
		s.Close()
	}()
	d, err := AttachFD(context.Background(), pair[0], opts...)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { d.Close(); <-done })
	return d
}

// BenchmarkReadRegister is a round trip against a server that only echoes. On one core (taskset -c 0) it compares with a
// bare socket echo; with "reactor" every reply takes the way through the reactor instead of the caller's own read.
func BenchmarkReadRegister(b *testing.B) {
	for name, eager := range map[string]bool{"caller": false, "reactor": true} {
		b.Run(name, func(b *testing.B) {
			d := benchDevice(b)
			d.conn.setEager(eager)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := d.ReadRegion32(context.Background(), 0, 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("bare", func(b *testing.B) {
		d := benchDevice(b)
		k, _ := d.conn.begin(context.Background(), 9)
		request := k.put(0, 16, 0)
		request[countOffset] = 4
		d.conn.mu.Lock()
		d.conn.reading = true // the reactor keeps away
		d.conn.mu.Unlock()
		reply := make([]byte, 64)
		for b.Loop() {
			if _, err := unix.Write(d.conn.fd, request); err != nil {
				b.Fatal(err)
			}
			if _, err := unix.Read(d.conn.fd, reply); err != nil && err != unix.EINTR && err != unix.EAGAIN {
				b.Fatal(err)
			}
		}
		d.conn.release(k)
	})
}

const countOffset = 28 // offset of the count in a region access with its header

func BenchmarkPostRegister(b *testing.B) {
	d := benchDevice(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := d.PostRegion32(context.Background(), 0, 0x1000, 1); err != nil {
			b.Fatal(err)
		}
	}
}
