package boltstore

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestWhereTheFileIsIsJudged(t *testing.T) { // pains.md, b8
	for _, row := range []struct {
		name    string
		on      fileSystem
		refused bool
		told    string // level of a line
	}{
		{"on a local disk", fileSystem{free: -1}, false, ""},
		{"on NFS", fileSystem{kind: "NFS", trait: network}, true, ""},
		{"on sshfs", fileSystem{kind: "fuse.sshfs", trait: network}, true, ""},
		{"behind FUSE, who knows where", fileSystem{kind: "fuse.mergerfs", trait: userspace}, false, "WARN"},
		{"in memory", fileSystem{kind: "tmpfs", trait: volatile}, false, "INFO"},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "var")
			path := filepath.Join(dir, "sessions.db")
			var log journal
			s, err := Open(path, Options{Log: log.logger(), fileSystem: func(asked string) (fileSystem, error) {
				if asked != dir {
					t.Errorf("asked about %s, want %s", asked, dir)
				}
				return row.on, nil
			}})
			if row.refused {
				if err == nil {
					t.Fatal("Open: no error")
				}
				for _, part := range []string{path, row.on.kind + ", a network file system", "local disk", "session.store.redis"} {
					if !strings.Contains(err.Error(), part) {
						t.Errorf("Open: error = %v, want %q in it", err, part)
					}
				}
				if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("a file was made all the same: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			wantLogin(t, s)
			if err := s.Close(); err != nil {
				t.Error(err)
			}
			lines := log.lines(t, "store_place")
			if row.told == "" && len(lines) > 0 || row.told != "" && (len(lines) != 1 || lines[0]["level"] != row.told || lines[0]["kind"] != row.on.kind) {
				t.Errorf("log = %v, want %q", lines, row.told)
			}
		})
	}
}

func TestAFileThatOthersCouldReadIsShutAndTold(t *testing.T) { // CVE-2012-2760, ST-06
	for _, row := range []struct {
		name      string
		file, dir os.FileMode
		told      string // the path that a warning names
	}{
		{"both are the owner's alone", 0o600, 0o700, ""},
		{"the owner alone may read the file, and write it no more", 0o400, 0o700, ""},
		{"the group can read the file", 0o640, 0o700, "sessions.db"},
		{"everybody can write the file", 0o666, 0o700, "sessions.db"},
		{"others can look into the directory", 0o600, 0o755, ""},
		{"the group can put another file in its place", 0o600, 0o770, "dir"},
		{"the directory is like /tmp", 0o600, 0o777 | os.ModeSticky, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "dir")
			path := filepath.Join(dir, "sessions.db")
			if err := openAt(t, path).Close(); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(os.Chmod(path, row.file|0o200), os.Chmod(dir, row.dir)); err != nil {
				t.Fatal(err)
			}
			_, log := openWith(t, path, Options{})
			wantMode(t, path, 0o600)
			wantMode(t, dir, row.dir.Perm()) // it may be for others' files too
			var told []string
			for _, line := range log.lines(t, "store_permissions") {
				told = append(told, filepath.Base(line["path"].(string)))
			}
			if got := strings.Join(told, " "); got != row.told {
				t.Errorf("warned of %q, want %q", got, row.told)
			}
		})
	}
}

func TestWhatStandsInTheWayIsSaid(t *testing.T) {
	dir := t.TempDir()
	isDir := filepath.Join(dir, "directory")
	if err := os.Mkdir(isDir, 0o700); err != nil {
		t.Fatal(err)
	}
	inFile := filepath.Join(dir, "file", "sessions.db")
	if err := os.WriteFile(filepath.Dir(inFile), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	circle := filepath.Join(dir, "circle")
	if err := os.Symlink("circle", circle); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		isDir:  "it is no regular file: session.store.bbolt.path has to name a file",
		inFile: "not a directory",
		circle: "too many levels of symbolic links",
	} {
		t.Run(want, func(t *testing.T) {
			var log journal
			_, err := Open(path, Options{Log: log.logger()})
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open: error = %v, want %q and the path", err, want)
			}
			if lines := log.lines(t, "store_quarantined"); len(lines) > 0 {
				t.Errorf("log = %v: there was nothing to set aside", lines)
			}
		})
	}
}

// The path may be a symbolic link, to a file that is there or will be. What is set
// aside, and what a compaction makes, is where the file is.
func TestASymbolicLinkStaysOne(t *testing.T) {
	for name, target := range map[string]func(dir string) string{
		"by its whole path":         func(dir string) string { return filepath.Join(dir, "disk", "sessions.db") },
		"seen from the link":        func(string) string { return "../disk/sessions.db" },
		"by way of another link":    func(string) string { return "other" },
		"not there yet, in a place": func(string) string { return "../disk/new/sessions.db" },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			link := filepath.Join(dir, "etc", "sessions.db")
			for _, d := range []string{"etc", "disk"} {
				if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := errors.Join(os.Symlink("../disk/sessions.db", filepath.Join(dir, "etc", "other")), os.Symlink(target(dir), link)); err != nil {
				t.Fatal(err)
			}
			s, _ := openWith(t, link, Options{rest: time.Hour})
			key := fill(t, s, 1)[0]
			if err := s.compact(); err != nil {
				t.Fatal(err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = openAt(t, link)
			if _, err := s.Load(t.Context(), key); err != nil {
				t.Errorf("Load: %v", err)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(link, []byte{0}, 0o600); err != nil {
				t.Fatal(err)
			}
			wantLogin(t, openAt(t, link))
			if to, err := os.Readlink(link); err != nil || to != target(dir) {
				t.Errorf("the link leads to %q, %v, want %q", to, err, target(dir))
			}
			if all, err := os.ReadDir(filepath.Join(dir, "etc")); err != nil || len(all) != 2 {
				t.Errorf("beside the link: %v, %v", all, err)
			}
		})
	}
}

// A compaction that was broken off leaves its copy, which the next start removes.
func TestTheLeftoverOfACompactionIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sessions.db")
	s := openAt(t, path)
	key := fill(t, s, 1)[0]
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path+compacting, []byte("half a copy"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, path)
	if _, err := s.Load(t.Context(), key); err != nil {
		t.Errorf("Load: %v", err)
	}
	wantOnly(t, path)
}
