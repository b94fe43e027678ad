// Command pack writes a Go module as its users get it: what is in the zip that is made of it, and nothing else.
package main

import (
	"log"
	"os"
	"path/filepath"

	"golang.org/x/mod/module"
	"golang.org/x/mod/zip"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 3 {
		log.Fatal("usage: pack <module's directory> <empty directory>")
	}
	version := module.Version{Path: "github.com/autonomy-gate/autonomy-gate/bindings/go", Version: "v0.1.0"}
	file := filepath.Clean(os.Args[2]) + ".zip"
	packed, err := os.Create(file)
	if err != nil {
		log.Fatal(err)
	}
	if err := zip.CreateFromDir(packed, version, os.Args[1]); err != nil {
		log.Fatal(err)
	}
	if err := packed.Close(); err != nil {
		log.Fatal(err)
	}
	if err := zip.Unzip(os.Args[2], version, file); err != nil {
		log.Fatal(err)
	}
}
