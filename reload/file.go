// SPDX-License-Identifier: Apache-2.0

package reload

import (
	"fmt"
	"io"
	"io/fs"
	"os"
)

// readFile reads a regular file of at most limit bytes. It never waits for a writer, as
// opening a FIFO does, and never opens a device, which can have effects: anything but
// a regular file is refused by its type, and again once it is open, in case it was
// exchanged in between.
func readFile(path string, limit int) ([]byte, fs.FileMode, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, 0, err
	}
	if err := regular(path, fi); err != nil {
		return nil, 0, err
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openFlags, 0)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	if fi, err = f.Stat(); err != nil {
		return nil, 0, err
	}
	if err := regular(path, fi); err != nil {
		return nil, 0, err
	}
	if fi.Size() > int64(limit) {
		return nil, 0, tooLarge(path, limit)
	}
	// One buffer, never moved, so that clearing it clears all there is of a key. A byte
	// more than the size tells whether the file has grown.
	data := make([]byte, fi.Size()+1)
	n, err := io.ReadFull(f, data)
	switch err {
	case io.ErrUnexpectedEOF, io.EOF:
		return data[:n], fi.Mode(), nil
	case nil:
		err = fmt.Errorf("%s grows while it is read; write to another name and rename it", path)
	}
	clear(data)
	return nil, 0, err
}

func regular(path string, fi fs.FileInfo) error {
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file but has mode %s", path, fi.Mode())
	}
	return nil
}

func tooLarge(path string, limit int) error {
	return fmt.Errorf("%s is larger than the %d KiB that such a file may have; is it the right one?", path, limit>>10)
}
