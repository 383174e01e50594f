// Package audit keeps the record of who changed what: one JSON object a line, on disk before the change happens.
//
// Here: the record and the file. Not here: which calls are recorded (api), rotation and retention (the administrator's
// log rotation: the file is opened anew for each record, so it may be renamed at any time). api calls it.
package audit

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// Phase says which moment of a call a record tells of.
type Phase string

const (
	// Intent is written before anything is changed.
	Intent Phase = "intent"
	// Result follows an intent once the outcome is known. An intent without one means: the outcome is not known.
	Result Phase = "result"
	// Refused is all there is of a call that was not allowed to begin.
	Refused Phase = "refused"
)

// Record is one line of the log. It holds no secrets.
type Record struct {
	Time  time.Time `json:"time"`
	Phase Phase     `json:"phase"`
	// Call ties an intent to its result.
	Call string `json:"call"`
	// Who is the identity in the client certificate: "user/admin", "host/kvm1", or "nobody".
	Who string `json:"who"`
	// From is the peer's address.
	From   string `json:"from"`
	Method string `json:"method"`
	// Object is what the call is about: "pool/sales".
	Object string `json:"object,omitempty"`
	// Note says more of the request, for example how a deletion treats data.
	Note string `json:"note,omitempty"`
	// Code and Error are the outcome: "OK", or why not.
	Code  string `json:"code,omitempty"`
	Error string `json:"error,omitempty"`
}

// Log is the file. It is safe for concurrent use.
type Log struct {
	path string
	mu   sync.Mutex
}

// Open makes a log that appends to the file at path, and makes sure now that it can.
func Open(path string) (*Log, error) {
	l := &Log{path: path}
	if err := l.append(nil); err != nil {
		return nil, fmt.Errorf("open audit log: %w", err)
	}
	return l, nil
}

// Write appends the record and returns when it is on disk.
func (l *Log) Write(r Record) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	if err := l.append(append(line, '\n')); err != nil {
		return fmt.Errorf("write audit log: %w", err)
	}
	return nil
}

func (l *Log) append(line []byte) (err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, statErr := os.Stat(l.path)
	file, err := os.OpenFile(l.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	if errors.Is(statErr, fs.ErrNotExist) {
		if err := syncDir(filepath.Dir(l.path)); err != nil {
			return err
		}
	}
	before, err := file.Stat()
	if err != nil {
		return err
	}
	if _, err := file.Write(line); err != nil {
		// Half a line would spoil the next one.
		return errors.Join(err, file.Truncate(before.Size()))
	}
	return file.Sync()
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
