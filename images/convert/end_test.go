package convert_test

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"daybreak/images/convert"
)

// Killed, the process takes qemu-img with it, and the raw disk is gone.
func TestNothingOutlivesUs(t *testing.T) {
	if path := os.Getenv("CONVERT_THIS"); path != "" { // the process that is killed
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		_, err = convert.ToRaw(t.Context(), file, convert.Config{Dir: os.Getenv("CONVERT_HERE")})
		t.Fatalf("not killed: %v", err)
	}
	file := empty(t)
	dir := room(t)
	line := filepath.Join(dir, "line")
	if err := syscall.Mkfifo(line, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(line, 0o666); err != nil {
		t.Fatal(err)
	}
	stub(t, `exec 9>'`+line+`'; echo runs >&9; exec sleep 300`)
	spare := t.TempDir()
	ours := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingOutlivesUs$")
	ours.Env = append(os.Environ(), "CONVERT_THIS="+file.Name(), "CONVERT_HERE="+spare)
	if err := ours.Start(); err != nil {
		t.Fatal(err)
	}
	end, err := os.Open(line) // waits for the stub
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	words := bufio.NewReader(end)
	if said, err := words.ReadString('\n'); said != "runs\n" {
		t.Fatalf("the stub said %q, %v", said, err)
	}
	if err := ours.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = ours.Wait() // killed
	// The stub holds the line as long as it lives; the test's own time limit ends this otherwise.
	if _, err := io.ReadAll(words); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(spare); err != nil || len(left) > 0 {
		t.Errorf("%v was left, %v", left, err)
	}
}
