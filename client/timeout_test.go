package client

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"vfiouser/codec"
	"vfiouser/test/holdings"
)

func TestCallTimeout(t *testing.T) {
	gaveUp := make(chan struct{})
	d := attach(t, func(s *server) {
		late := s.Want(codec.CmdRegionRead)
		<-gaveUp
		s.Access(late)
		s.ServeAccesses()
	})
	d.conn.callTime = 20 * time.Millisecond // (nothing else is under way)
	background := context.Background()
	if _, err := d.ReadRegion32(background, 0, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	close(gaveUp)
	d.conn.callTime = testTimeout
	if v, err := d.ReadRegion32(background, 0, 0x10); err != nil || v != 0x13121110 {
		t.Errorf("%#x, %v", v, err)
	}
	if err := d.PostRegion32(background, 0, 0, 1); err != nil {
		t.Error(err)
	}
	if d.Err() != nil {
		t.Error(d.Err())
	}
}

func TestCallTimeoutBoundsAttach(t *testing.T) {
	holdings.CheckLeaks(t)
	_, err := AttachFD(context.Background(), newServer(t, (*server).UntilEOF), WithCallTimeout(20*time.Millisecond))
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}

func TestCallTimeoutBoundsTheWaitForASlot(t *testing.T) {
	// A call given up keeps its slot until its late answer comes, and here none comes.
	d := attach(t, (*server).UntilEOF)
	d.conn.callTime = 20 * time.Millisecond
	full := func() bool {
		d.conn.mu.Lock()
		defer d.conn.mu.Unlock()
		return len(d.conn.slots) == maxCalls && len(d.conn.free) == 0
	}
	for !full() { // (a call whose time is over before it was sent keeps none)
		var wg sync.WaitGroup
		for range maxCalls {
			wg.Go(func() {
				if err := d.ReadRegion(context.Background(), 0, 0, make([]byte, 1)); !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	if err := d.PostRegion32(context.Background(), 0, 0, 0); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
}
