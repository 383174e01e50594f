package pki

import (
	"fmt"
	"os"
	"path/filepath"
)

// writeNewFile writes a file that must not be there yet: all of it or nothing, on disk before it returns.
func writeNewFile(path string, content []byte, mode os.FileMode) error {
	temporary, err := writeTemporary(path, content, mode)
	if err != nil {
		return err
	}
	defer os.Remove(temporary)
	// link(2) does not replace, as rename(2) would.
	if err := os.Link(temporary, path); err != nil {
		return fmt.Errorf("publish file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

func writeTemporary(path string, content []byte, mode os.FileMode) (name string, err error) {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return "", fmt.Errorf("make temporary file: %w", err)
	}
	defer func() {
		if closeErr := file.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close %s: %w", file.Name(), closeErr)
		}
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	if err := file.Chmod(mode); err != nil {
		return "", fmt.Errorf("set mode: %w", err)
	}
	if _, err := file.Write(content); err != nil {
		return "", fmt.Errorf("write file: %w", err)
	}
	if err := file.Sync(); err != nil {
		return "", fmt.Errorf("sync file: %w", err)
	}
	return file.Name(), nil
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open directory: %w", err)
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}
