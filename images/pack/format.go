package pack

import (
	"fmt"
	"os"

	"daybreak/images/inspect"
)

// Check says whether a file is a raw disk of a size that a golden image can have, and returns the size. Errors wrap
// ErrNotRaw and say what to do.
func Check(file *os.File) (uint64, error) {
	info, err := file.Stat()
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if !info.Mode().IsRegular() {
		return 0, fmt.Errorf("%s is not a regular file: copy the disk into a file first: %w", file.Name(), ErrNotRaw)
	}
	report, err := inspect.Inspect(file, info.Size())
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", file.Name(), err)
	}
	if report.Format != inspect.Raw && report.Taken() {
		return 0, fmt.Errorf("%s is a %s disk, and only raw disks are cut into chunks: convert it first: %w", file.Name(), report.Format, ErrNotRaw)
	}
	if err := report.Err(); err != nil {
		return 0, fmt.Errorf("%s: %w: %w", file.Name(), err, ErrNotRaw)
	}
	return report.VirtualSize, nil
}
