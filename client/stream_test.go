package client

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

func TestUninvitedDescriptorsAreClosed(t *testing.T) {
	// The leak check of attach does the rest.
	file, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	t.Run("with a reply", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.Send(replyTo(s.Want(codec.CmdRegionRead), func(*codec.Header, *codec.RegionAccess) {}), file, file)
		})
		if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
			t.Error(err)
		}
	})
	t.Run("with a command", func(t *testing.T) {
		done := make(chan struct{})
		attach(t, func(s *server) {
			h := codec.Header{ID: 3, Command: codec.CmdDMARead, Size: 16}
			s.Send(h.Append(nil), file)
			s.Want(codec.CmdDMARead)
			close(done)
		})
		<-done
	})
	t.Run("with the beginning of a message that never ends", func(t *testing.T) {
		d := attach(t, func(s *server) {
			h := codec.Header{ID: 3, Command: codec.CmdDMAWrite, Size: 100}
			for range 5 {
				s.Send(h.Append(nil), file)
			}
			s.Close()
		})
		ended(t, d, ErrDisconnected)
	})
	t.Run("with the reply to a call given up", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		d := attach(t, func(s *server) {
			m := s.Want(codec.CmdGetRegionInfo)
			cancel()
			again := s.Want(codec.CmdRegionRead)
			s.Reply(m, (&codec.RegionInfo{Size: 4096, Flags: 7}).AppendReply(nil, 1000), file)
			s.Access(again)
		})
		if _, err := d.Region(ctx, 0); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestTooManyDescriptorsEndTheSession(t *testing.T) {
	file, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	t.Run("in one segment", func(t *testing.T) {
		d := attach(t, func(s *server) { s.Send([]byte{0}, slices.Repeat([]int{file}, maxFDs+1)...) })
		ended(t, d, ErrProtocol)
	})
	t.Run("in many segments of one message", func(t *testing.T) {
		d := attach(t, func(s *server) {
			s.Send(codec.Header{Command: codec.CmdDMAWrite, Size: 4096}.Append(nil))
			for range maxFDs/16 + 1 {
				s.Send([]byte{0}, slices.Repeat([]int{file}, 16)...)
			}
		})
		ended(t, d, ErrProtocol)
	})
}

func TestMessagesArriveInPieces(t *testing.T) {
	d := attach(t, func(s *server) {
		first, second := s.Want(codec.CmdRegionRead), s.Want(codec.CmdRegionRead)
		stream := replyTo(first, func(h *codec.Header, _ *codec.RegionAccess) {})
		ask := codec.Header{ID: 77, Command: codec.CmdDMARead, Size: 32}
		stream = append(stream, (&codec.DMAAccess{Addr: 5, Count: 5}).AppendHead(ask.Append(nil))...)
		stream = append(stream, replyTo(second, func(h *codec.Header, _ *codec.RegionAccess) {})...)
		for _, b := range stream {
			s.Send([]byte{b})
		}
		if m := s.Want(codec.CmdDMARead); m.ID != 77 || !m.IsError() {
			t.Errorf("answer %+v", m.Header)
		}
	})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if v, err := d.ReadRegion32(testContext(t), 0, 0); err != nil || v != 0x04030201 {
				t.Errorf("%#x, %v", v, err)
			}
		})
	}
	wg.Wait()
}

func TestServerThatDoesNotReadHoldsUpPosts(t *testing.T) {
	goOn := make(chan struct{})
	var posted int
	d := attach(t, func(s *server) {
		<-goOn
		for range posted {
			m := s.Want(codec.CmdRegionWrite)
			if want := bytes.Repeat([]byte{0x5a}, 8000); !m.NoReply() || !bytes.Equal(m.Payload[codec.RegionAccessSize:], want) {
				t.Error("a posted write came damaged")
			}
		}
		s.ServeAccesses()
	})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	p := bytes.Repeat([]byte{0x5a}, 8000)
	for {
		err := d.PostRegion(ctx, 0, 0, p)
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
			break
		}
		posted++
	}
	close(goOn)
	if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
		t.Error(err)
	}
}

func TestServerThatDoesNotReadItsAnswersIsGivenUp(t *testing.T) {
	d := attach(t, func(s *server) {
		ask := codec.Header{Command: codec.CmdDMARead, Size: 32}
		b := bytes.Repeat((&codec.DMAAccess{Addr: 0x1000, Count: 1 << 20}).AppendHead(ask.Append(nil)), 100)
		s.Want(codec.CmdDMAMap)
		s.Send(b)
	})
	mem, err := NewMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	if err := d.MapDMA(testContext(t), mem.At(0x1000).ByMessage()); !errors.Is(err, ErrUnread) {
		t.Error(err)
	}
	ended(t, d, ErrUnread)
}

func TestBadDescriptorFailsTheCallOnly(t *testing.T) {
	d := attach(t, (*server).ServeAccesses)
	var refused *SendError
	if err := d.EnableIRQ(testContext(t), IRQMSIX, 0, 1<<20); !errors.Is(err, unix.EBADF) || !errors.As(err, &refused) {
		t.Error(err)
	}
	if _, err := d.ReadRegion32(testContext(t), 0, 0); err != nil {
		t.Error(err)
	}
}

func TestRandomStreamsNeitherHangNorLeak(t *testing.T) {
	file, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(file)
	for seed := range uint64(200) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			d := attach(t, func(s *server) {
				r := rand.New(rand.NewPCG(seed, 0))
				request := s.Want(codec.CmdRegionRead)
				for range 1 + r.IntN(4) {
					b := replyTo(request, func(h *codec.Header, a *codec.RegionAccess) {
						h.Command = codec.Command(r.IntN(codec.NumCommands))
						h.Flags = codec.Flags(r.IntN(64))
						if r.IntN(3) == 0 {
							h.Command, h.Flags = codec.CmdDMARead, 0
						}
					})
					for range r.IntN(4) {
						b[r.IntN(len(b))] = byte(r.Uint32())
					}
					if r.IntN(4) == 0 {
						s.Send(b[:1+r.IntN(len(b)-1)], file)
					} else {
						s.Send(b)
					}
				}
				s.Close()
			})
			if _, err := d.ReadRegion32(testContext(t), 0, 0); errors.Is(err, context.DeadlineExceeded) {
				t.Error("the call hangs")
			}
		})
	}
}
