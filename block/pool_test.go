package block

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func newPool(t *testing.T, spec string) *pool {
	t.Helper()
	p, err := OpenPool(spec)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close()) })
	return p.(*pool)
}

// pools makes a pool of 16 MiB of each kind.
func pools(t *testing.T, test func(t *testing.T, p *pool)) {
	t.Run("mem", func(t *testing.T) { test(t, newPool(t, "mem:16M")) })
	t.Run("dir", func(t *testing.T) { test(t, newPool(t, "dir:"+t.TempDir()+":16M")) })
}

func wantFree(t *testing.T, p Pool, want int64) {
	t.Helper()
	if total, free := p.Capacity(); total != 16<<20 || free != want {
		t.Errorf("%d of %d bytes are free, want %d of 16 MiB", free, total, want)
	}
}

func TestPoolKeepsBooks(t *testing.T) {
	pools(t, func(t *testing.T, p *pool) {
		wantFree(t, p, 16<<20)
		a, err := p.Create("a", 10<<20)
		must(t, err)
		wantFree(t, p, 6<<20)
		if _, err := p.Create("b", 6<<20+512); !errors.Is(err, ErrPoolFull) {
			t.Errorf("more than is free: %v, want ErrPoolFull", err)
		}
		b, err := p.Create("b", 6<<20)
		must(t, err)
		wantFree(t, p, 0)
		if err := a.(Resizer).Resize(10<<20 + 512); !errors.Is(err, ErrPoolFull) || a.Size() != 10<<20 {
			t.Errorf("grown beyond the pool: %v, and the size is %d", err, a.Size())
		}
		must(t, b.(Resizer).Resize(1<<20))
		wantFree(t, p, 5<<20)
		must(t, a.(Resizer).Resize(15<<20))
		wantFree(t, p, 0)
		must(t, a.Close())
		must(t, a.Close())
		wantFree(t, p, 0)
		must(t, p.Remove("a"))
		wantFree(t, p, 15<<20)
		must(t, b.Close())
	})
}

func TestPoolVolumes(t *testing.T) {
	pools(t, func(t *testing.T, p *pool) {
		b, err := p.Create("disk-1.x_y", 1<<20)
		must(t, err)
		got := bytes.Repeat([]byte{9}, 1<<20)
		must(t, read(b, 0, got))
		if !bytes.Equal(got, make([]byte, 1<<20)) {
			t.Error("it does not read as zeroes")
		}
		data := []byte(strings.Repeat("stay", 128))
		must(t, write(b, 512, data))
		for _, tt := range []struct {
			name string
			do   func() error
			want error
		}{
			{"create again", func() error { _, err := p.Create("disk-1.x_y", 1<<20); return err }, fs.ErrExist},
			{"open twice", func() error { _, err := p.Open("disk-1.x_y"); return err }, ErrInUse},
			{"remove while open", func() error { return p.Remove("disk-1.x_y") }, ErrInUse},
			{"open what is not there", func() error { _, err := p.Open("disk-2"); return err }, fs.ErrNotExist},
			{"remove what is not there", func() error { return p.Remove("disk-2") }, fs.ErrNotExist},
			{"no size", func() error { _, err := p.Create("disk-2", 0); return err }, ErrSpec},
			{"odd size", func() error { _, err := p.Create("disk-2", 1000); return err }, ErrSpec},
		} {
			if err := tt.do(); !errors.Is(err, tt.want) {
				t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
			}
		}
		must(t, b.(Resizer).Resize(2<<20))
		must(t, b.Close())
		if err := read(b, 0, make([]byte, 512)); err != ErrClosed {
			t.Errorf("closed: %v, want ErrClosed", err)
		}
		b, err = p.Open("disk-1.x_y")
		must(t, err)
		got = got[:len(data)]
		must(t, read(b, 512, got))
		if !bytes.Equal(got, data) || b.Size() != 2<<20 {
			t.Errorf("%d bytes, or the data is lost", b.Size())
		}
		must(t, b.Close())
		must(t, p.Remove("disk-1.x_y"))
		b, err = p.Create("disk-1.x_y", 1<<20)
		must(t, err)
		must(t, read(b, 512, got))
		if !bytes.Equal(got, make([]byte, len(got))) {
			t.Error("what was removed is there again")
		}
		must(t, p.Close())
		if err := b.(Resizer).Resize(2 << 20); err != ErrClosed {
			t.Errorf("grown in a closed pool: %v", err)
		}
		must(t, b.Close())
		if _, err := p.Open("disk-1.x_y"); err != ErrClosed {
			t.Errorf("opened in a closed pool: %v", err)
		}
	})
}

func TestPoolNames(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "sub"), 0o700))
	p := newPool(t, "dir:"+filepath.Join(dir, "sub")+":16M")
	for _, name := range []string{"", ".", "..", "../x", "x/../../x", "/etc/x", "a/b", ".hidden", "-x", "a\x00b", "a b", "ä", "a\n",
		`a\b`, strings.Repeat("x", 65)} {
		if _, err := p.Create(name, 512); !errors.Is(err, ErrSpec) {
			t.Errorf("create %q: %v, want ErrSpec", name, err)
		}
		if _, err := p.Open(name); !errors.Is(err, ErrSpec) {
			t.Errorf("open %q: %v, want ErrSpec", name, err)
		}
		if err := p.Remove(name); !errors.Is(err, ErrSpec) {
			t.Errorf("remove %q: %v, want ErrSpec", name, err)
		}
	}
	b, err := p.Create(strings.Repeat("x", 64), 512)
	must(t, err)
	must(t, b.Close())
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v beside the pool; %v", entries, err)
	}
}

func TestPoolSpecs(t *testing.T) {
	file := newPath(t, 512)
	for _, tt := range []struct {
		spec string
		want error
		says string
	}{
		{"", ErrSpec, "unknown kind of pool"},
		{"tape:1G", ErrSpec, "unknown kind of pool"},
		{"mem:", ErrSpec, "no size"},
		{"mem:1X", ErrSpec, "bad size"},
		{"dir:/srv", ErrSpec, "dir:PATH:SIZE"},
		{"dir::1G", ErrSpec, "dir:PATH:SIZE"},
		{"dir:/srv:1X", ErrSpec, "bad size"},
		{"dir:/nowhere/at/all:1G", fs.ErrNotExist, "cannot open the directory"},
		{"dir:" + file + ":1G", syscall.ENOTDIR, "cannot open the directory"},
	} {
		p, err := OpenPool(tt.spec)
		var open *OpenError
		if !errors.As(err, &open) || !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) || p != nil {
			t.Errorf("%s: %v, %v, want %v and %q", tt.spec, p, err, tt.want, tt.says)
		}
		if err := CheckPool(tt.spec); errors.Is(err, ErrSpec) != (tt.want == ErrSpec) || tt.want != ErrSpec && err != nil {
			t.Errorf("check %s: %v", tt.spec, err)
		}
	}
	dir := filepath.Join(t.TempDir(), "with:colons:1G")
	must(t, os.Mkdir(dir, 0o700))
	newPool(t, "dir:"+dir+":16M")
}

// A directory outlives the pool, and is one pool's at a time.
func TestPoolDirectoryIsFoundAgain(t *testing.T) {
	dir := t.TempDir()
	spec := "dir:" + dir + ":16M"
	p, err := OpenPool(spec)
	must(t, err)
	b, err := p.Create("kept", 4<<20)
	must(t, err)
	data := []byte(strings.Repeat("kept", 128))
	must(t, write(b, 0, data))
	if _, err := OpenPool(spec); !errors.Is(err, ErrInUse) {
		t.Errorf("opened twice: %v, want ErrInUse", err)
	}
	must(t, b.Close())
	must(t, p.Close())
	must(t, p.Close())
	if n := descriptors(t, dir); n != 0 {
		t.Errorf("%d descriptors left", n)
	}
	var st unix.Stat_t
	must(t, unix.Stat(filepath.Join(dir, "kept.volume"), &st))
	if st.Size != 4<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("the file has %d bytes, of which %d take space", st.Size, st.Blocks*512)
	}
	// Less than is in it.
	p = newPool(t, "dir:"+dir+":1M")
	if total, free := p.Capacity(); total != 1<<20 || free != 0 {
		t.Errorf("%d of %d bytes are free", free, total)
	}
	b, err = p.Open("kept")
	must(t, err)
	got := make([]byte, len(data))
	must(t, read(b, 0, got))
	if !bytes.Equal(got, data) {
		t.Error("the data is lost")
	}
	must(t, b.(Resizer).Resize(512<<10))
	must(t, b.Close())
}

func TestPoolInDamagedDirectory(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	victim := newPath(t, 1<<20)
	must(t, os.WriteFile(at("empty.volume"), nil, 0o600))
	must(t, os.WriteFile(at("odd.volume"), make([]byte, 1000), 0o600))
	must(t, os.Mkdir(at("folder.volume"), 0o700))
	must(t, os.Symlink(victim, at("link.volume")))
	must(t, os.Symlink(at("nowhere"), at("dangling.volume")))
	must(t, unix.Mkfifo(at("fifo.volume"), 0o600))
	must(t, os.WriteFile(at("half.volume-draft"), make([]byte, 512), 0o600))
	must(t, os.WriteFile(at(" .volume"), make([]byte, 512), 0o600))
	must(t, os.WriteFile(at("README"), nil, 0o600))
	for i := range 3 {
		huge := at("huge" + string(rune('0'+i)) + ".volume")
		must(t, os.WriteFile(huge, nil, 0o600))
		if os.Truncate(huge, 1<<43) != nil {
			must(t, os.Remove(huge))
		}
	}
	p := newPool(t, "dir:"+dir+":1G")
	for name, want := range map[string]error{"empty": ErrSpec, "odd": ErrSpec, "folder": ErrSpec, "link": ErrSpec, "dangling": ErrSpec, "fifo": ErrSpec,
		"half": fs.ErrNotExist, "README": fs.ErrNotExist} {
		if _, err := p.Open(name); !errors.Is(err, want) {
			t.Errorf("open %s: %v, want %v", name, err, want)
		}
	}
	for _, name := range []string{"empty", "link", "folder"} {
		if _, err := p.Create(name, 512); !errors.Is(err, fs.ErrExist) {
			t.Errorf("create %s: %v, want ErrExist", name, err)
		}
	}
	if _, free := p.Capacity(); free != 0 {
		for i := range 3 {
			_ = p.Remove("huge" + string(rune('0'+i)))
		}
	}
	for _, name := range []string{"empty", "odd", "link", "dangling", "fifo", "huge0", "huge1", "huge2"} {
		if err := p.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("remove %s: %v", name, err)
		}
	}
	if _, err := os.Stat(victim); err != nil {
		t.Errorf("what a link led to: %v", err)
	}
	if _, err := os.Lstat(at("half.volume-draft")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was left incomplete: %v", err)
	}
	for _, name := range []string{"README", " .volume"} {
		if _, err := os.Lstat(at(name)); err != nil {
			t.Errorf("what is not the pool's: %v", err)
		}
	}
	// Made behind the pool's back.
	must(t, os.WriteFile(at("late.volume"), []byte("mine"), 0o600))
	if _, err := p.Create("late", 512); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a file that came later: %v, want ErrExist", err)
	}
	b, err := p.Create("gone", 512)
	must(t, err)
	must(t, b.Close())
	must(t, os.Remove(at("gone.volume")))
	if _, err := p.Open("gone"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that went: %v, want ErrNotExist", err)
	}
	must(t, p.Remove("gone"))
	must(t, os.WriteFile(at("again.volume-draft"), []byte("half"), 0o600))
	b, err = p.Create("again", 512)
	must(t, err)
	must(t, b.Close())
	must(t, p.Remove("again"))
	must(t, os.RemoveAll(dir))
	if _, err := p.Create("x", 512); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a directory that went: %v, want ErrNotExist", err)
	}
}

// A volume's file that somebody has opened beside the pool is not taken away from him.
func TestPoolKeepsAFileThatIsInUse(t *testing.T) {
	dir := t.TempDir()
	p := newPool(t, "dir:"+dir+":16M")
	b, err := p.Create("shared", 1<<20)
	must(t, err)
	must(t, b.Close())
	path := filepath.Join(dir, "shared.volume")
	other, err := File(path, FileOptions{})
	must(t, err)
	if err := p.Remove("shared"); !errors.Is(err, ErrInUse) {
		t.Errorf("got %v, want ErrInUse", err)
	}
	must(t, write(other, 0, make([]byte, 512)))
	wantFree(t, p, 15<<20)
	must(t, other.Close())
	must(t, p.Remove("shared"))
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
	wantFree(t, p, 16<<20)
	if n := descriptors(t, path); n != 0 {
		t.Errorf("%d descriptors left", n)
	}
}

func TestPoolFromManyGoroutines(t *testing.T) {
	pools(t, func(t *testing.T, p *pool) {
		var wait sync.WaitGroup
		for i := range 8 {
			wait.Go(func() {
				name := string(rune('a' + i%4))
				for range 20 {
					b, err := p.Create(name, 4<<20)
					if errors.Is(err, fs.ErrExist) {
						b, err = p.Open(name)
					}
					if err == nil {
						_ = b.(Resizer).Resize(8 << 20)
						if err = b.Close(); err == nil {
							err = p.Remove(name)
						}
					}
					if err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, ErrPoolFull) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
						t.Error(err)
					}
				}
			})
		}
		wait.Wait()
		for i := range 4 {
			_ = p.Remove(string(rune('a' + i)))
		}
		wantFree(t, p, 16<<20)
	})
}
