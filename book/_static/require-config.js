// Loaded before require.js on pages with widgets: everything that widgets ask for lies in the book itself.
(() => {
  const vendor = (document.documentElement.dataset.content_root || "./") + "_static/vendor";
  window.require = { baseUrl: vendor };
  window.__jupyter_widgets_assets_path__ = vendor + "/@jupyter-widgets/";

  // The widget manager asks MathJax 2 to typeset through MathJax.Hub.Queue; the book carries MathJax 3.
  document.addEventListener("DOMContentLoaded", () => {
    const mathjax = window.MathJax;
    if (!mathjax || mathjax.Hub) return;
    mathjax.Hub = {
      Queue: (...calls) => {
        for (const call of calls) {
          const element = Array.isArray(call) ? call[2] : null;
          if (element && mathjax.typesetPromise) mathjax.typesetPromise([element]);
        }
      },
    };
  });
})();
