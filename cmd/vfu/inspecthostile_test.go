package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/pci"
)

// script is a server that answers each command by a function; without one it refuses with EPERM.
type script map[codec.Command]func(payload []byte) ([]byte, error)

func (s script) serve(c net.Conn) {
	defer c.Close()
	for {
		var head [codec.HeaderSize]byte
		if _, err := io.ReadFull(c, head[:]); err != nil {
			return
		}
		h, err := codec.DecodeHeader(head[:])
		if err != nil {
			return
		}
		payload := make([]byte, int(h.Size)-codec.HeaderSize)
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		reply := codec.Header{ID: h.ID, Command: h.Command, Flags: codec.FlagReply}
		answer, ok := s[h.Command]
		var body []byte
		err = unix.EPERM
		if ok {
			body, err = answer(payload)
		}
		var errno unix.Errno
		if errors.As(err, &errno) {
			reply.Flags |= codec.FlagError
			reply.Errno, body = uint32(errno), nil
		}
		reply.Size = uint32(codec.HeaderSize + len(body))
		if _, err := c.Write(append(reply.Append(nil), body...)); err != nil {
			return
		}
	}
}

// stranger is a server that is not to be trusted, with a configuration space of its choice.
func stranger(space []byte, regions, irqs uint32) script {
	return script{
		codec.CmdVersion: func([]byte) ([]byte, error) {
			v := codec.VersionMsg{Minor: 1}
			return v.Append(nil), nil
		},
		codec.CmdGetInfo: func([]byte) ([]byte, error) {
			info := codec.DeviceInfo{ArgSz: codec.DeviceInfoSize, Flags: codec.DeviceFlagPCI | 1<<7, NumRegions: regions, NumIRQs: irqs}
			return info.Append(nil), nil
		},
		codec.CmdGetRegionInfo: func(payload []byte) ([]byte, error) {
			var ask codec.RegionInfo
			if err := ask.DecodeRequest(payload); err != nil {
				return nil, err
			}
			info := codec.RegionInfo{Index: ask.Index}
			switch ask.Index {
			case codec.RegionBAR0:
				info.Size, info.Flags = 1<<62, codec.RegionFlagRead|codec.RegionFlagWrite
			case codec.RegionConfig:
				info.Size, info.Flags = uint64(len(space)), codec.RegionFlagRead
			case codec.RegionBAR5:
				return nil, unix.EACCES
			}
			return info.AppendReply(nil, ask.ArgSz), nil
		},
		codec.CmdRegionRead: func(payload []byte) ([]byte, error) {
			var ask codec.RegionAccess
			if err := ask.DecodeReadRequest(payload); err != nil {
				return nil, err
			}
			if ask.Region != codec.RegionConfig || ask.Offset != 0 {
				return nil, unix.EIO
			}
			return append(ask.AppendHead(nil), space[:ask.Count]...), nil
		},
	}
}

func (s script) listen(t *testing.T) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.serve(c)
		}
	}()
	return socket
}

// What a server refuses, or says wrongly, is in the report and does not end it.
func TestInspectOfAStranger(t *testing.T) {
	loop := make([]byte, pci.ExpressSpaceSize)
	copy(loop, []byte{0x36, 0x1b, 0x10, 0, 0, 0, 0x10, 0, 2, 2, 8, 1})
	loop[0x34], loop[0x40], loop[0x41] = 0x40, 5, 0x40
	for _, tt := range []struct {
		name          string
		space         []byte
		regions, irqs uint32
		says          []string
	}{
		{"a list that goes round", loop, 9, 5, []string{
			"flags      pci, bit7", "migration  no", "class      010802",
			"BAR 0   4EiB  read, write; refused: input/output error", "BAR 5   0B    no access; refused: permission denied",
			"MSI-X  -  refused: operation not permitted", "40  MSI  off, 1 of 1 vectors, 32 bits",
			"the list is broken: pci: broken list of capabilities: the link at 0x41 leads back to 0x40",
		}},
		{"a function that does not answer", slices.Repeat([]byte{0xff}, 256), 9, 0, []string{"ffff:ffff", "does not answer"}},
		{"a space that is too short", make([]byte, 8), 9, 0, []string{"refused: pci: access outside of the configuration space"}},
		{"a space that is too large", append(slices.Clone(loop), make([]byte, 4096)...), 9, 0, []string{"class      010802"}},
		{"no configuration space", nil, 9, 0, []string{"flags      pci, bit7"}},
		{"more than one looks at", loop, 1<<32 - 1, 1<<32 - 1, []string{"and 4294967039 more, which were not asked for", "255", "interrupt index 255"}},
		{"nothing at all", nil, 0, 0, []string{"flags      pci, bit7"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			socket := stranger(tt.space, tt.regions, tt.irqs).listen(t)
			text, err := inspected(t, socket)
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.says {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			if _, err := inspected(t, "--json", socket); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestInspectOfABrokenServer(t *testing.T) {
	good := stranger(make([]byte, 256), 9, 5)
	for command := range good {
		t.Run(fmt.Sprint(command), func(t *testing.T) {
			bad := script{}
			for c, answer := range good {
				bad[c] = answer
			}
			bad[command] = func([]byte) ([]byte, error) { return []byte{1, 2, 3}, nil }
			_, err := inspected(t, bad.listen(t))
			if err == nil || !strings.Contains(err.Error(), "no vfio-user server, or a broken one") {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestInspectForLspciNeedsAConfigurationSpace(t *testing.T) {
	_, err := inspected(t, "--lspci", stranger(nil, 9, 0).listen(t))
	if err == nil || !strings.Contains(err.Error(), "no configuration space") {
		t.Errorf("got %v", err)
	}
}
