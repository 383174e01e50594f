package disk

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How fast the store gave a base when one was last compared is kept in a small file, since a base is compared when it comes and
// an agent starts more often than that. The file says nothing that anything must rely on: without it, or when it cannot be
// read, the rate is unknown until the next base comes.
const (
	fileRate = "readrate"
	// leastRead is how much a comparison must have read to say how fast the disk is.
	leastRead = 8 << 20
	// mostRate is above what any store gives, bytes per second: a file that says more is broken.
	mostRate = 1 << 40
)

// measure notes how fast a file was read whole, holes left out.
func (s *Store) measure(f *os.File, took time.Duration) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil || st.Blocks*512 < leastRead || took <= 0 {
		return
	}
	rate := min(uint64(float64(st.Blocks*512)/took.Seconds()), mostRate)
	s.rate.Lock()
	defer s.rate.Unlock()
	s.readRate.Store(rate)
	if err := s.writeSmall(fileRate, []byte(strconv.FormatUint(rate, 10))); err != nil {
		s.log.Warn().Err(err).Msg("how fast the store reads is not kept for the next start of the agent")
	}
}

// loadRate takes up the rate that an agent before this one measured, if there is one to be read.
func (s *Store) loadRate() {
	text, err := os.ReadFile(s.path(fileRate))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var rate uint64
	if err == nil {
		rate, err = strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	}
	if err != nil || rate > mostRate {
		s.log.Warn().Err(err).Msg("how fast the store reads was kept and cannot be read; it is unknown until the next base is compared")
		return
	}
	s.readRate.Store(rate)
}
