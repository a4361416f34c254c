package boltstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

// What becomes of a file while it is in use, by a disk that fails or by somebody who
// copies another over it, is told as an error: no call hangs, the process lives on,
// and the next one judges the file.
func TestAFileThatIsDamagedWhileInUse(t *testing.T) {
	for name, row := range map[string]struct {
		damage func(f *os.File, size int64) error
		reason string
	}{
		"it is emptied":     {func(f *os.File, _ int64) error { return f.Truncate(0) }, ""}, // and so it is a new one
		"its end is lost":   {func(f *os.File, size int64) error { return f.Truncate(3 * int64(os.Getpagesize())) }, "end is missing"},
		"it is overwritten": {func(f *os.File, size int64) error { return overwrite(f, 0, size) }, "it is none"},
		"its content is overwritten": {func(f *os.File, size int64) error { return overwrite(f, 2*int64(os.Getpagesize()), size) },
			"damaged"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "sessions.db")
			child := exec.Command(os.Args[0], "-test.run=^$")
			child.Env = append(os.Environ(), childDamage+"="+path)
			s := openAt(t, path)
			fill(t, s, 300)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			in, err := child.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := child.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			child.Stderr = os.Stderr
			if err := child.Start(); err != nil {
				t.Fatal(err)
			}
			said := bufio.NewReader(out)
			if line, err := said.ReadString('\n'); line != "ready\n" {
				t.Fatal(line, err)
			}
			file, err := os.OpenFile(path, os.O_RDWR, 0)
			if err != nil {
				t.Fatal(err)
			}
			info, err := file.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(row.damage(file, info.Size()), file.Close(), in.Close()); err != nil {
				t.Fatal(err)
			}
			hung := time.AfterFunc(20*time.Second, func() { _ = child.Process.Kill() })
			told, err := io.ReadAll(said)
			if n := strings.Count(string(told), "store_damaged"); n != 1 || err != nil {
				t.Errorf("it was told %d times, %v, want once:\n%s", n, err, told)
			}
			if err := child.Wait(); err != nil {
				t.Fatalf("the process that used it: %v", err)
			}
			hung.Stop()
			if info, err := os.Stat(path); err != nil || info.Size() > 0 {
				wantQuarantined(t, path, row.reason)
				return
			}
			s = openAt(t, path)
			wantLogin(t, s)
		})
	}
}

func overwrite(f *os.File, from, to int64) error {
	_, err := f.WriteAt([]byte(strings.Repeat("\x00\x01\xfe\xff", int(to-from)/4)), from)
	return err
}

// useDamaged is the process of TestAFileThatIsDamagedWhileInUse. It reads and
// writes, and ends well unless something is answered that is not true.
func useDamaged(s *Store) {
	fmt.Println("ready")
	_, _ = os.Stdin.Read(make([]byte, 1)) // until it is damaged
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	failed := 0
	for i := range uint64(300) {
		key := session.Key(fmt.Appendf(nil, "%032d", i))
		rec, err := s.Load(ctx, key)
		if errors.Is(err, session.ErrAbsent) {
			os.Exit(2) // nobody has ended it
		}
		if err == nil && len(rec.Data) != 2000 {
			os.Exit(3)
		}
		if s.Create(ctx, numbered(i), loginRecord()) != nil {
			failed++
		}
	}
	_ = s.Close()
	if failed == 0 || ctx.Err() != nil {
		os.Exit(4)
	}
	os.Exit(0)
}
