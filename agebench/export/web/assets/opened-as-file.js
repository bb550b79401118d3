// Browsers load no modules from the disk; without this message the page would only stay empty.
if (location.protocol === "file:") {
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("status").textContent =
      "This page needs a web server. In its folder, run: python -m http.server --bind 127.0.0.1 8000, and open http://127.0.0.1:8000/";
  });
}
