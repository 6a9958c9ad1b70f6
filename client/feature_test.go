package client

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// feature receives a DEVICE_FEATURE.
func (s *server) feature() (wire, codec.Feature) {
	m := s.Want(codec.CmdDeviceFeature)
	var f codec.Feature
	if err := f.Decode(m.Payload); err != nil {
		s.t.Error(err)
	}
	return m, f
}

// answer replies to a DEVICE_FEATURE with data.
func (s *server) answerFeature(m wire, f codec.Feature, data []byte) {
	f.Data = data
	f.ArgSz = uint32(codec.FeatureSize + len(data))
	s.Reply(m, f.Append(nil))
}

func TestFeatureRequests(t *testing.T) {
	const get, set, probe = codec.FeatureGet, codec.FeatureSet, codec.FeatureProbe
	for _, test := range []struct {
		name  string
		call  func(ctx context.Context, d *Device) ([]byte, error)
		flags codec.FeatureFlags
		argsz uint32
		data  string // of the request
		reply string
	}{
		{"get", func(ctx context.Context, d *Device) ([]byte, error) { return d.GetFeature(ctx, 77, nil, 20) }, 77 | get, 28, "", "hello"},
		{"get with a question", func(ctx context.Context, d *Device) ([]byte, error) { return d.GetFeature(ctx, 77, []byte("what"), 4) }, 77 | get, 12, "what", "this"},
		{"get with a question longer than the answer", func(ctx context.Context, d *Device) ([]byte, error) { return d.GetFeature(ctx, 77, []byte("what"), 1) }, 77 | get, 12, "what", "x"},
		{"set", func(ctx context.Context, d *Device) ([]byte, error) { return d.SetFeature(ctx, 77, []byte("value")) }, 77 | set, 13, "value", "value"},
		{"set without data", func(ctx context.Context, d *Device) ([]byte, error) { return d.SetFeature(ctx, 77, nil) }, 77 | set, 8, "", ""},
		{"the largest of both", func(ctx context.Context, d *Device) ([]byte, error) {
			return d.GetFeature(ctx, 77, make([]byte, 8192), 1<<20)
		}, 77 | get, 8 + 1<<20, string(make([]byte, 8192)), string(make([]byte, 1<<20))},
		{"bits that are none of the feature's number", func(ctx context.Context, d *Device) ([]byte, error) {
			return d.SetFeature(ctx, 77|get|probe, nil)
		}, 77 | set, 8, "", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				m, f := s.feature()
				if f.Flags != test.flags || f.ArgSz != test.argsz || string(f.Data) != test.data {
					t.Errorf("flags %#x, argsz %d, %d bytes of data", f.Flags, f.ArgSz, len(f.Data))
				}
				s.answerFeature(m, f, []byte(test.reply))
				m, _ = s.feature()
				s.Refuse(m, unix.ENOTTY)
			})
			if got, err := test.call(testContext(t), d); err != nil || string(got) != test.reply {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			if _, err := test.call(testContext(t), d); !errors.Is(err, unix.ENOTTY) {
				t.Error(err)
			}
		})
	}
}

func TestProbeFeature(t *testing.T) {
	for _, test := range []struct {
		errno unix.Errno
		there bool
		err   bool
	}{
		{0, false, false}, // an errno of 0 reads as EINVAL
		{unix.EINVAL, false, false},
		{unix.ENOTTY, false, false},
		{unix.ENOTSUP, false, false},
		{unix.EBUSY, false, true},
		{unix.Errno(1 << 16), true, false}, // no error
	} {
		t.Run(test.errno.Error(), func(t *testing.T) {
			d := attach(t, func(s *server) {
				m, f := s.feature()
				if want := codec.FeatureDMALoggingStart | codec.FeatureSet | codec.FeatureProbe; f.Flags != want || f.ArgSz != 8 || len(f.Data) != 0 {
					t.Errorf("%+v", f)
				}
				if test.there {
					s.answerFeature(m, f, nil)
				} else {
					s.Refuse(m, test.errno)
				}
			})
			there, err := d.ProbeFeature(testContext(t), codec.FeatureDMALoggingStart, codec.FeatureSet)
			if there != test.there || test.err != (err != nil) {
				t.Errorf("%v: %v, %v", test.errno, there, err)
			}
		})
	}
}

func TestFeatureArgumentsAreChecked(t *testing.T) {
	d := attach(t, func(*server) {})
	ctx := testContext(t)
	if _, err := d.GetFeature(ctx, 1, nil, 1<<20+1); !errors.Is(err, ErrInvalid) {
		t.Error("too much room:", err)
	}
	if _, err := d.SetFeature(ctx, 1, make([]byte, 8193)); !errors.Is(err, ErrInvalid) {
		t.Error("too much data:", err)
	}
	if _, err := d.ProbeFeature(ctx, 1, codec.FeatureProbe); !errors.Is(err, ErrInvalid) {
		t.Error("probe of probe:", err)
	}
}

func TestHostileFeatureReplyEndsTheSession(t *testing.T) {
	for name, change := range map[string]func(f *codec.Feature) []byte{
		"another feature":        func(f *codec.Feature) []byte { f.Flags++; return f.Append(nil) },
		"another operation":      func(f *codec.Feature) []byte { f.Flags ^= codec.FeatureGet | codec.FeatureSet; return f.Append(nil) },
		"an unknown flag":        func(f *codec.Feature) []byte { f.Flags |= 1 << 31; return f.Append(nil) },
		"argsz 0":                func(f *codec.Feature) []byte { f.ArgSz = 0; return f.Append(nil) },
		"more than was room for": func(f *codec.Feature) []byte { f.Data = make([]byte, 9); return f.Append(nil) },
		"less than the head":     func(f *codec.Feature) []byte { return f.Append(nil)[:7] },
		"nothing":                func(f *codec.Feature) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				m, f := s.feature()
				f.Data = make([]byte, 8)
				s.Reply(m, change(&f))
			})
			if _, err := d.GetFeature(testContext(t), 1, nil, 8); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
}

func TestMigrationFlagsAndState(t *testing.T) {
	d := attach(t, func(s *server) {
		m, f := s.feature()
		if f.Flags != codec.FeatureMigration|codec.FeatureGet || f.ArgSz != 16 {
			t.Errorf("%+v", f)
		}
		s.answerFeature(m, f, (codec.MigrationStopCopy | codec.MigrationPreCopy).Append(nil))
		m, f = s.feature()
		if f.Flags != codec.FeatureMigDeviceState|codec.FeatureGet || f.ArgSz != 16 {
			t.Errorf("%+v", f)
		}
		s.answerFeature(m, f, codec.MigPreCopy.Append(nil))
		m, f = s.feature()
		if f.Flags != codec.FeatureMigDeviceState|codec.FeatureSet || f.ArgSz != 16 || !bytes.Equal(f.Data, codec.MigStop.Append(nil)) {
			t.Errorf("%+v", f)
		}
		s.answerFeature(m, f, f.Data)
		m, _ = s.feature()
		s.Refuse(m, unix.EINVAL)
	})
	ctx := testContext(t)
	if flags, err := d.MigrationFlags(ctx); err != nil || flags != codec.MigrationStopCopy|codec.MigrationPreCopy {
		t.Error(flags, err)
	}
	if state, err := d.MigrationState(ctx); err != nil || state != codec.MigPreCopy {
		t.Error(state, err)
	}
	if err := d.SetMigrationState(ctx, codec.MigStop); err != nil {
		t.Error(err)
	}
	if err := d.SetMigrationState(ctx, codec.MigPreCopy); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}

func TestHostileMigrationStateEndsTheSession(t *testing.T) {
	set := func(d *Device) error { return d.SetMigrationState(context.Background(), codec.MigStop) }
	get := func(d *Device) error { _, err := d.MigrationState(context.Background()); return err }
	flags := func(d *Device) error { _, err := d.MigrationFlags(context.Background()); return err }
	for _, test := range []struct {
		name string
		call func(d *Device) error
		data []byte
	}{
		{"unknown state", get, codec.MigState(8).Append(nil)},
		{"state cut short", get, make([]byte, 7)},
		{"no state", get, nil},
		{"another state than was set", set, codec.MigRunning.Append(nil)},
		{"no state after one was set", set, nil},
		{"flags cut short", flags, make([]byte, 4)},
	} {
		t.Run(test.name, func(t *testing.T) {
			d := attach(t, func(s *server) {
				m, f := s.feature()
				s.answerFeature(m, f, test.data)
			})
			if err := test.call(d); !errors.Is(err, ErrProtocol) {
				t.Error(err)
			}
			ended(t, d, ErrProtocol)
		})
	}
}
