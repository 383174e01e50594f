package disk

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"daybreak/images"
)

// What is to be known of a disk travels in an extended attribute of the file itself: it is there from the moment the file
// gets its name, goes with it into the trash, and cannot fall out of step as a second file or a database could.
const (
	attribute    = "user.daybreak"
	maxAttribute = 512
)

// about is the attribute of an overlay or a data disk. QEMU's user owns the file and could change it: it is bounded, and
// nothing but the count of space and what people see hangs on it.
type about struct {
	desktop string
	// reserve is what is promised to an overlay, bytes. A data disk is promised its size.
	reserve uint64
	// base is the digest of an overlay's base; zero for a data disk.
	base images.Digest
}

func (a about) encode() string {
	return fmt.Sprintf("1 %s %d %s", a.desktop, a.reserve, a.base)
}

func parseAbout(text string) (about, error) {
	fields := strings.Split(text, " ")
	if len(fields) != 4 || fields[0] != "1" {
		return about{}, fmt.Errorf("read attribute of disk: %.80q is not one of ours", text)
	}
	if err := checkDesktop(fields[1]); err != nil {
		return about{}, fmt.Errorf("read attribute of disk: %w", err)
	}
	reserve, err := strconv.ParseUint(fields[2], 10, 63)
	if err != nil {
		return about{}, fmt.Errorf("read attribute of disk: %w", err)
	}
	base, err := images.ParseDigest(fields[3])
	if err != nil {
		return about{}, fmt.Errorf("read attribute of disk: %w", err)
	}
	return about{desktop: fields[1], reserve: reserve, base: base}, nil
}

// aboutOf reads what is known of a disk. Nothing known is no error: a copy that lost its attributes is still a disk.
func aboutOf(path string) (a about, known bool, err error) {
	text, err := readAttribute(path)
	if errors.Is(err, unix.ENODATA) {
		return about{}, false, nil
	}
	if err != nil {
		return about{}, false, err
	}
	a, err = parseAbout(text)
	return a, err == nil, nil
}

// stamp is how a base looked when it was last known to be whole. A change of the file shows in it: whoever writes to a file,
// punches a hole in it or puts another in its place can set its size and its mtime back, but not its ctime and its inode.
type stamp struct {
	size, mtime, ctime int64
	inode              uint64
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return stamp{}, fmt.Errorf("look at %s: %w", path, err)
	}
	return newStamp(path, st)
}

func stampOfOpen(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, fmt.Errorf("look at %s: %w", f.Name(), err)
	}
	return newStamp(f.Name(), st)
}

func newStamp(path string, st unix.Stat_t) (stamp, error) {
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return stamp{}, fmt.Errorf("look at %s: not a regular file", path)
	}
	return stamp{size: st.Size, mtime: st.Mtim.Nano(), ctime: st.Ctim.Nano(), inode: st.Ino}, nil
}

func (s stamp) encode() string {
	return fmt.Sprintf("2 %d %d %d %d\n", s.size, s.mtime, s.ctime, s.inode)
}

func readAttribute(path string) (string, error) {
	buf := make([]byte, maxAttribute)
	n, err := unix.Lgetxattr(path, attribute, buf)
	if err != nil {
		return "", fmt.Errorf("read attribute of %s: %w", path, err)
	}
	return string(buf[:n]), nil
}

func writeAttribute(f *os.File, text string) error {
	if err := unix.Fsetxattr(int(f.Fd()), attribute, []byte(text), 0); err != nil {
		return fmt.Errorf("write attribute of %s: %w", f.Name(), err)
	}
	return nil
}

// checkAttributes finds out whether the file system keeps extended attributes.
func (s *Store) checkAttributes() error {
	err := unix.Fsetxattr(int(s.lock.Fd()), attribute, []byte("1"), 0)
	if errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("the file system of %s keeps no user extended attributes: use ext4, XFS or btrfs", s.cfg.Root)
	}
	if err != nil {
		return fmt.Errorf("try attributes in %s: %w", s.cfg.Root, err)
	}
	return nil
}
