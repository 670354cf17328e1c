// The build is committed, so that installing unitok needs no npm: `make page` makes it.
import { defineConfig } from "vite";

export default defineConfig({
  base: "./", // the page may stand under any path of a proxy
  build: {
    outDir: "../unitok/server/page",
    emptyOutDir: true,
    assetsInlineLimit: 0, // the page's policy allows no script or style that is not a file
    modulePreload: false,
    license: { fileName: "licenses.md" }, // of what is built in
  },
  server: { proxy: { "/v1": "http://127.0.0.1:8000" } },
});
